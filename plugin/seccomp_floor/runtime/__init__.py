"""The OCI runtime wrapper, for runtimes and engines that NRI cannot adjust."""
