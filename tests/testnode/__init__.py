"""A node of one's own for tests: a private containerd, a CRI client, the door probe, and nothing left behind.

`Node` is the whole; its parts are of use alone:

* `programs`: containerd, its shim, ctr and runc, from PATH or built once into a cache;
* `scratch`: a directory, a cgroup and the processes in them, removed whatever happens to the test;
* `containerd`: the private containerd and its settings;
* `cri`: pods and containers;
* `probe`: the door probe, built, run and read;
* `daemon`: `seccomp-floor run` as a child process.
"""

from testnode.containerd import PATIENT, Containerd, Handler, Nri
from testnode.cri import NONE, RUNTIME_DEFAULT, UNCONFINED, Container, CriError, ExecResult, Pod, Seccomp, localhost
from testnode.daemon import Daemon
from testnode.node import Node
from testnode.scratch import Scratch

__all__ = [
    "NONE",
    "PATIENT",
    "RUNTIME_DEFAULT",
    "UNCONFINED",
    "Container",
    "Containerd",
    "CriError",
    "Daemon",
    "ExecResult",
    "Handler",
    "Node",
    "Nri",
    "Pod",
    "Scratch",
    "Seccomp",
    "localhost",
]
