"""Outcomes kept on disk, so that a section proven once is not proven again.

An outcome follows from its *question* (the section's text, the policy's text, the runtime) and from the files that worked it out
(our code, libseccomp, the runtime). An entry therefore holds the whole question, compared byte for byte, and what those files
looked like: a collision of names, a changed policy, an upgrade are each nothing but a miss.

Who could write an entry could open every door of a later container. So the directory must belong to this user and be closed to
everybody else, and so must each entry; both are looked at through descriptors, after opening, and no symbolic link is followed.
Whatever is not as it should be is not used, and without a directory there is just no cache.
"""

import os
import stat
from binascii import crc32

__all__ = ["Cache", "Outcome", "fingerprint"]

ROOTS: str | None = "/var/cache"
MAGIC = b"seccomp-floor outcome 1"
MOST_ENTRIES = 256
LARGEST = 1 << 20  # bytes of an entry; a larger question is worked out each time


class Outcome:
    """What becomes of a bundle.

    ``section``: the JSON text to put in place of its section, None to leave it as it is. ``mark``: the value, in JSON, of the
    annotation that goes with it. ``warnings``: to be said each time.
    """

    __slots__ = ("mark", "section", "warnings")

    def __init__(self, section: str | None, mark: str, warnings: list[str]) -> None:
        self.section = section
        self.mark = mark
        self.warnings = warnings


def fingerprint(path: str) -> str:
    """What a file looks like: a change of its contents changes this."""
    status = os.stat(path)
    return f"{status.st_dev} {status.st_ino} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"


class Cache:
    """The cache of the user that runs us, or nothing where it cannot have one."""

    def __init__(self, directory: int | None) -> None:
        self._directory = directory

    @classmethod
    def of_user(cls) -> "Cache":
        """``$XDG_CACHE_HOME/seccomp-floor/outcomes``; else root's in /var/cache, everybody else's in ``~/.cache``.

        In a user namespace root is somebody else: /var/cache is then not his, and his home is.
        """
        home = os.environ.get("HOME")
        for parent in (
            os.environ.get("XDG_CACHE_HOME"),
            ROOTS if os.geteuid() == 0 else None,
            f"{home}/.cache" if home else None,
        ):
            if parent and parent.startswith("/"):
                directory = _open_directory(f"{parent}/seccomp-floor/outcomes")
                if directory is not None:
                    return cls(directory)
        return cls(None)

    def get(self, question: bytes) -> Outcome | None:
        """The outcome on this question, if it was worked out before and nothing that it rests upon has changed."""
        if self._directory is None:
            return None
        try:
            file = os.open(
                _name(question), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=self._directory
            )
        except OSError:
            return None
        try:
            if not _private(os.fstat(file), stat.S_IFREG):
                return None
            data = b""
            while len(data) <= LARGEST and (more := os.read(file, LARGEST + 1)):
                data += more
        finally:
            os.close(file)
        return _decode(data, question)

    def put(self, question: bytes, outcome: Outcome, rests_on: list[str]) -> None:
        """Keep an outcome. :param rests_on: files of which a change makes it void"""
        if self._directory is None:
            return
        name = _name(question)
        part = f"{name}.{os.urandom(8).hex()}"
        try:
            data = _encode(question, outcome, rests_on)
            if len(data) > LARGEST:
                return
            _make_room(self._directory)
            file = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=self._directory)
            try:
                os.write(file, data)
            finally:
                os.close(file)
            os.rename(part, name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
        except OSError:  # a full disk, say: the outcome holds all the same
            return


def _make_room(directory: int) -> None:
    names = os.listdir(directory)
    if len(names) < MOST_ENTRIES:
        return
    by_age = sorted((os.stat(name, dir_fd=directory, follow_symlinks=False).st_mtime_ns, name) for name in names)
    for _, name in by_age[: MOST_ENTRIES // 2]:
        os.unlink(name, dir_fd=directory)


def _open_directory(path: str) -> int | None:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        try:
            directory = os.open(path, flags)
        except FileNotFoundError:
            os.makedirs(path, 0o700, exist_ok=True)
            directory = os.open(path, flags)
    except OSError:
        return None
    if _private(os.fstat(directory), stat.S_IFDIR):
        return directory
    os.close(directory)
    return None


def _private(status: os.stat_result, kind: int) -> bool:
    """Whether this is of that kind, this user's, and of no use to anybody else."""
    return stat.S_IFMT(status.st_mode) == kind and status.st_uid == os.geteuid() and not status.st_mode & 0o077


def _name(question: bytes) -> str:
    """Not a digest: the question itself is compared."""
    return f"{crc32(question):08x}-{len(question):x}"


def _encode(question: bytes, outcome: Outcome, rests_on: list[str]) -> bytes:
    texts = [
        "leave" if outcome.section is None else "replace",
        outcome.section or "",
        outcome.mark,
        str(len(outcome.warnings)),
    ]
    texts += outcome.warnings
    for path in rests_on:
        texts += [path, fingerprint(path)]
    body = pack([question, *(os.fsencode(text) for text in texts)])
    return b"%s %08x\n%s" % (MAGIC, crc32(body), body)


def _decode(data: bytes, question: bytes) -> Outcome | None:
    """An entry's outcome, if it answers this question and everything that it rests upon looks as it did."""
    head, _, body = data.partition(b"\n")
    if head != b"%s %08x" % (MAGIC, crc32(body)):
        return None
    found, *rest = _unpack(body)
    if found != question:
        return None
    action, section, mark, count, *texts = map(os.fsdecode, rest)
    warnings, files = texts[: int(count)], texts[int(count) :]
    try:
        if any(fingerprint(path) != seen for path, seen in zip(files[::2], files[1::2], strict=True)):
            return None
    except OSError:
        return None
    return Outcome(section if action == "replace" else None, mark, warnings)


def pack(parts: list[bytes]) -> bytes:
    """Strings of bytes in one, in a way that no two lists share: each with its length before it."""
    return b"".join(b"%d:%s" % (len(part), part) for part in parts)


def _unpack(data: bytes) -> list[bytes]:
    parts = []
    while data:
        length, _, data = data.partition(b":")
        parts.append(data[: int(length)])
        data = data[int(length) :]
    return parts
