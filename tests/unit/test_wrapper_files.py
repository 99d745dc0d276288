"""Bundles and cached outcomes on disk: whole or not at all, and of no use to anybody who should not have written them."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from seccomp_floor.runtime import bundle
from seccomp_floor.runtime import cache as cache_module
from seccomp_floor.runtime.bundle import BundleError
from seccomp_floor.runtime.cache import Cache, Outcome, pack
from seccomp_floor.runtime.report import report


def test_replacing_keeps_mode_and_owner(tmp_path: Path) -> None:
    """And leaves nothing beside it."""
    path = tmp_path / "config.json"
    path.write_bytes(b"old \xff")
    path.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(path, 1234, 4321)
    before = path.stat()
    text, status = bundle.read(str(tmp_path))
    bundle.replace(str(tmp_path), text.replace("old", "new"), status)
    after = path.stat()
    assert path.read_bytes() == b"new \xff"
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda _: None, "No such file"),
        (lambda path: path.symlink_to("/etc/hostname"), "symbolic link"),
        (lambda path: path.mkdir(), "regular file"),
        (os.mkfifo, "regular file"),
        (lambda path: path.write_bytes(b" " * (bundle.LARGEST + 1)), "larger than"),
    ],
)
def test_what_is_not_read(tmp_path: Path, make: Callable[[Path], object], complaint: str) -> None:
    """One sentence that names the file."""
    make(tmp_path / "config.json")
    with pytest.raises(BundleError, match=complaint) as caught:
        bundle.read(str(tmp_path))
    assert str(tmp_path / "config.json") in str(caught.value)


def test_a_bundle_that_cannot_be_written(tmp_path: Path) -> None:
    """It is gone, here; root may write everywhere else."""
    (tmp_path / "config.json").write_text("{}")
    _, status = bundle.read(str(tmp_path))
    with pytest.raises(BundleError, match="cannot be replaced"):
        bundle.replace(str(tmp_path / "gone"), "", status)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    """An empty one, of this user."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return Cache.of_user()


@pytest.fixture
def outcomes(tmp_path: Path) -> Path:
    """Its directory."""
    return tmp_path / "seccomp-floor" / "outcomes"


QUESTION = pack([b"policy", b"section"])


@pytest.mark.parametrize("outcome", [Outcome("{}", '"1"', []), Outcome(None, "", ["one", "tw\u00f6"])])
def test_what_is_put_is_got(cache: Cache, tmp_path: Path, outcome: Outcome) -> None:
    """All of it."""
    file = tmp_path / "libseccomp.so"
    file.write_text("1")
    assert cache.get(QUESTION) is None
    cache.put(QUESTION, outcome, [str(file)])
    found = cache.get(QUESTION)
    assert found is not None
    assert (found.section, found.mark, found.warnings) == (outcome.section, outcome.mark, outcome.warnings)


def test_another_question_of_the_same_name(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name may collide; the question is compared."""
    monkeypatch.setattr(cache_module, "_name", lambda _: "collision")
    cache.put(QUESTION, Outcome("{}", '"1"', []), [])
    assert cache.get(QUESTION + b"x") is None
    assert cache.get(QUESTION) is not None


@pytest.mark.parametrize(
    "change", [lambda path: path.write_text("22"), lambda path: path.unlink(), lambda path: path.chmod(0o600)]
)
def test_a_file_that_changed_voids_what_rests_upon_it(
    cache: Cache, tmp_path: Path, change: Callable[[Path], object]
) -> None:
    """Another library, runtime or version of ours; even a touch."""
    file = tmp_path / "libseccomp.so"
    file.write_text("1")
    cache.put(QUESTION, Outcome("{}", '"1"', []), [str(file)])
    change(file)
    assert cache.get(QUESTION) is None


def test_a_damaged_entry_is_none(cache: Cache, outcomes: Path) -> None:
    """Cut anywhere, or with any byte changed."""
    cache.put(QUESTION, Outcome("{}", '"1"', []), [])
    (entry,) = outcomes.iterdir()
    whole = entry.read_bytes()
    for place in range(len(whole)):
        entry.write_bytes(whole[:place])
        assert cache.get(QUESTION) is None
        entry.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert cache.get(QUESTION) is None


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602])
def test_an_entry_that_others_could_touch_is_none(cache: Cache, outcomes: Path, mode: int) -> None:
    """Readable by others is enough: it was not us who made it so."""
    cache.put(QUESTION, Outcome("{}", '"1"', []), [])
    (entry,) = outcomes.iterdir()
    assert stat.S_IMODE(entry.stat().st_mode) == 0o600
    entry.chmod(mode)
    assert cache.get(QUESTION) is None


def test_a_symbolic_link_is_no_entry(cache: Cache, outcomes: Path, tmp_path: Path) -> None:
    """Wherever it leads."""
    cache.put(QUESTION, Outcome("{}", '"1"', []), [])
    (entry,) = outcomes.iterdir()
    entry.rename(tmp_path / "elsewhere")
    entry.symlink_to(tmp_path / "elsewhere")
    assert cache.get(QUESTION) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="takes root to give a file away")
@pytest.mark.parametrize("whose", ["entry", "directory"])
def test_what_another_user_owns_is_not_used(
    cache: Cache, outcomes: Path, monkeypatch: pytest.MonkeyPatch, whose: str
) -> None:
    """Be it closed to everybody else."""
    cache.put(QUESTION, Outcome("{}", '"1"', []), [])
    (entry,) = outcomes.iterdir()
    os.chown(entry if whose == "entry" else outcomes, 1234, 1234)
    monkeypatch.setattr(cache_module, "ROOTS", str(outcomes.parent.parent / "none"))
    monkeypatch.setenv("HOME", str(outcomes.parent.parent / "none"))
    assert Cache.of_user().get(QUESTION) is None


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701])
def test_a_directory_that_others_may_enter_is_not_used(
    outcomes: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mode: int
) -> None:
    """Neither read nor written."""
    outcomes.mkdir(parents=True)
    outcomes.chmod(mode)
    for name, value in {"XDG_CACHE_HOME": str(tmp_path), "HOME": ""}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(cache_module, "ROOTS", None)
    cache = Cache.of_user()
    cache.put(QUESTION, Outcome("{}", '"1"', []), [])
    assert cache.get(QUESTION) is None
    assert list(outcomes.iterdir()) == []


def test_it_does_not_grow_for_ever(cache: Cache, outcomes: Path) -> None:
    """The oldest go; the newest stays."""
    for number in range(cache_module.MOST_ENTRIES + 10):
        cache.put(pack([str(number).encode()]), Outcome("{}", '"1"', []), [])
    assert len(list(outcomes.iterdir())) <= cache_module.MOST_ENTRIES
    assert cache.get(pack([str(cache_module.MOST_ENTRIES + 9).encode()])) is not None


def test_packing_is_unambiguous() -> None:
    """No two lists become the same string."""
    assert pack([b"a", b"b"]) != pack([b"a1:b"]) != pack([b"ab"])


def test_reports_go_to_the_log(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """In both formats; errors are told on stderr as well."""
    log = tmp_path / "log"
    report('a "quoted"\nerror', "error", str(log), "json")
    report("a warning", "warning", str(log), "text")
    lines = log.read_text().splitlines()
    assert lines[0].startswith('{"level":"error","msg":"a \\"quoted\\"\\nerror","time":"2')
    assert lines[1].startswith('time="2')
    assert lines[1].endswith('level=warning msg="a warning"')
    assert capfd.readouterr().err == 'a "quoted"\nerror\n'


def test_reports_without_a_log_go_to_stderr(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Also where the log cannot be opened."""
    for log in ("", str(tmp_path / "none" / "log")):
        report("it failed", "error", log, "text")
        assert 'level=error msg="it failed"' in capfd.readouterr().err
