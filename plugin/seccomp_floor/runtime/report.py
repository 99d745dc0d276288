"""Words of the wrapper where the runtime's would be: in the log that the engine named, in the runtime's format.

That is where containerd, Docker and Podman look for the reason of a failure. runc writes through logrus; crun's JSON has the same
keys. What goes to a log goes to stderr as well, if it is an error, as with both of them.
"""

import os
import time
from _json import encode_basestring_ascii as quote

__all__ = ["report"]


def report(message: str, level: str, log: str, log_format: str) -> None:
    """Say something. :param level: logrus's (error, warning). :param log: a file; "": stderr"""
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    if log_format == "json":
        line = f'{{"level":"{level}","msg":{quote(message)},"time":"{when}"}}\n'
    else:
        line = f'time="{when}" level={level} msg={quote(message)}\n'
    if log and _append(log, line):
        if level == "error":
            _write(2, message + "\n")
    else:
        _write(2, line)


def _append(path: str, line: str) -> bool:
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    except OSError:
        return False
    try:
        return _write(file, line)
    finally:
        os.close(file)


def _write(file: int, text: str) -> bool:
    try:
        os.write(file, text.encode("utf-8", "backslashreplace"))
    except OSError:
        return False
    return True
