"""``python -m testnode [--all]``: set up what a node needs, or all that the tests need; quick where it is there."""

from __future__ import annotations

import os
import sys

from testnode import programs


def main() -> int:
    """Exit code 2 and one line where the machine lacks something that cannot be installed."""
    if os.geteuid() != 0:
        print("error: containers need root; run this as root", file=sys.stderr)
        return 2
    versions = [programs.CONTAINERD, programs.CONTAINERD_BEFORE] if "--all" in sys.argv[1:] else [programs.CONTAINERD]
    try:
        programs.install_debian_packages()
        where = {f"containerd {version}": programs.containerd_directory(version) for version in versions}
        where[f"runc {programs.RUNC}"] = programs.runc()
    except programs.SetupError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for what, path in where.items():
        programs.say(f"{what}: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
