"""``seccomp-floor runc``: the launcher under another name."""

from __future__ import annotations

import os
import signal
import sys
import sysconfig

__all__ = ["main"]

NAME = "seccomp-floor-runc"


def main(arguments: list[str]) -> int:
    """Become the launcher, which is installed beside the console script.

    :return: an exit code, where there is no launcher
    """
    launcher = os.path.join(sysconfig.get_path("scripts"), NAME)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, and what it becomes would inherit that
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execv(launcher, [launcher, *arguments])  # noqa: S606
    except OSError as error:
        print(f"seccomp-floor: {launcher}: {error.strerror}: it is installed with seccomp-floor", file=sys.stderr)
    return 2
