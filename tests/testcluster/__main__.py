"""``python -m testcluster``: set up everything that the Kubernetes tests need; quick where it is there already."""

from __future__ import annotations

import sys

from testcluster import daemon_image, programs
from testnode.programs import SetupError, install_debian_packages, say


def main() -> int:
    """Exit code 2 and one line where the machine lacks something that cannot be installed."""
    try:
        install_debian_packages(programs.DEBIAN_PACKAGES)
        say(f"Kubernetes {programs.KUBERNETES}: {programs.directory()}")
        say(f"base image: {daemon_image.base_archive()}")
        say(f"Helm {programs.HELM}: {programs.helm()}")
        say(
            f"definitions of the Prometheus operator {programs.OPERATOR}: {programs.monitoring_definitions()[0].parent}"
        )
    except SetupError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
