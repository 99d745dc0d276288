"""``python -m libseccomps``: set up the versions of libseccomp that tests compile with besides the installed one."""

from __future__ import annotations

import sys

from libseccomps import VERSIONS, SetupError, find, install


def main() -> int:
    """Exit code 0 even where a version cannot be had: the tests that need it then say so."""
    for version in VERSIONS:
        if not find(version):
            print(f"==> libseccomp {version}", file=sys.stderr)
        try:
            print(f"libseccomp {version}: {install(version)}", file=sys.stderr)
        except SetupError as error:
            print(f"libseccomp {version}: not set up: {error}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
