"""A bundle's ``config.json`` on disk: read whole, replaced whole."""

import os
import stat

from seccomp_floor.errors import SeccompFloorError

__all__ = ["LARGEST", "BundleError", "read", "replace"]

NAME = "config.json"
LARGEST = 4 << 20
"""Bytes. Real configurations have some 30 KiB; containerd passes them on in messages of at most 4 MiB (ttrpc)."""


class BundleError(SeccompFloorError):
    """The bundle's configuration cannot be read or written."""


def read(bundle: str) -> tuple[str, os.stat_result]:
    """The text of the bundle's configuration, and whose it is.

    Bytes that are not UTF-8 survive as lone surrogates (PEP 383).

    :raises BundleError: missing, unreadable, not a regular file (a symbolic link is none), or larger than LARGEST
    """
    path = f"{bundle}/{NAME}"
    try:
        # Not blocking, since it may be a FIFO.
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if os.path.islink(path):
            raise BundleError(f"{path}: expected a regular file, found a symbolic link") from None
        raise BundleError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise BundleError(f"{path}: expected a regular file")
        data = b""
        while len(data) <= LARGEST and (more := os.read(file, LARGEST + 1)):
            data += more
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror}") from None
    finally:
        os.close(file)
    if len(data) > LARGEST:
        raise BundleError(f"{path}: larger than {LARGEST} bytes")
    return data.decode("utf-8", "surrogateescape"), status


def replace(bundle: str, text: str, status: os.stat_result) -> None:
    """Put a text in place of the bundle's configuration: all of it or nothing, with the owner and mode of the one that was read.

    Another wrapper may be at work on the same bundle: each writes a file of its own, and the last to rename it wins. There is no
    fsync: this is against being killed, and after a power failure an engine writes its bundles anew.

    :raises BundleError: the bundle cannot be written
    """
    path = f"{bundle}/{NAME}"
    new = f"{path}.{os.urandom(8).hex()}"
    try:
        file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            data = memoryview(text.encode("utf-8", "surrogateescape"))
            while data:
                data = data[os.write(file, data) :]
            if (status.st_uid, status.st_gid) != (os.geteuid(), os.getegid()):
                os.fchown(file, status.st_uid, status.st_gid)
            os.fchmod(file, stat.S_IMODE(status.st_mode))
            os.rename(new, path)
        except BaseException:
            os.unlink(new)
            raise
        finally:
            os.close(file)
    except OSError as error:
        raise BundleError(f"{path}: cannot be replaced: {error.strerror}") from None
