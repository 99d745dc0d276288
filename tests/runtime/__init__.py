"""Other runtimes and engines, for real: runc, crun, Docker, Podman and containerd's older generations behind the wrapper."""
