"""Classic BPF as seccomp runs it: decode, run, compile, prove."""
