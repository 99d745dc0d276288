"""``python -m testnode``: set up everything that the node tests need; quick where it is there already."""

from __future__ import annotations

import os
import sys

from testnode import programs


def main() -> int:
    """Exit code 2 and one line where the machine lacks something that cannot be installed."""
    if os.geteuid() != 0:
        print("error: containers need root; run this as root", file=sys.stderr)
        return 2
    try:
        programs.install_debian_packages()
        where = {
            f"containerd {programs.CONTAINERD}": programs.containerd_directory(),
            f"containerd {programs.CONTAINERD_BEFORE}": programs.containerd_directory(programs.CONTAINERD_BEFORE),
            f"runc {programs.RUNC}": programs.runc(),
        }
    except programs.SetupError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for what, path in where.items():
        programs.say(f"{what}: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
