"""The owner's file: what it may say, what each silence means, and what every mistake is told."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from seccomp_floor import policy_file
from seccomp_floor.floor import (
    FAMILIES,
    Apply,
    Floor,
    Mode,
    OnBreach,
    OnNoProfile,
    OnUnprovable,
    OptOut,
    Policy,
)
from seccomp_floor.policy_file import LARGEST, PolicyError, load_policy, parse_policy
from seccomp_floor.profile import Action

BUILT_IN = b"""\
version: 1                    # of this format
mode: enforce                 # log: deny nothing, let the kernel log each use of a door (SCMP_ACT_LOG): who would be hit?
                              # report: change nothing, say what would change
floor:
  socketFamilies: {deny: [AF_ALG, AF_VSOCK], errno: EAFNOSUPPORT}
  socketcall: deny            # or allow: a door left open, and shown as such
  ioUring: deny               # or allow, likewise
  syscalls: {}                # further syscalls to deny, name: errno
apply:
  runtimeHandlers: ["*"]      # CRI runtime handlers under the floor
  noProfile: floor            # or hardened
optOut:
  honour: true
  namespaces: []
onUnprovable: reject          # or admit
onBreach: report              # or kill
"""


def test_the_example_says_what_silence_says() -> None:
    assert parse_policy(BUILT_IN, "policy.yaml") == Policy()


@pytest.mark.parametrize("text", [b"# nothing\n", b"---\n", b"{}", b"floor: {}\napply: {}\noptOut: {}\n"])
def test_every_key_is_optional(text: bytes) -> None:
    assert parse_policy(text, "policy.yaml") == Policy()


def test_the_built_in_policy() -> None:
    policy = Policy()
    assert policy.mode is Mode.ENFORCE
    assert policy.floor == Floor(("AF_ALG", "AF_VSOCK"), errno.EAFNOSUPPORT, True, True, (), Action.ERRNO)
    assert policy.apply == Apply(("*",), OnNoProfile.FLOOR)
    assert policy.opt_out == OptOut(True, ())
    assert (policy.on_unprovable, policy.on_breach) == (OnUnprovable.REJECT, OnBreach.REPORT)


def test_everything_otherwise() -> None:
    text = b"""
version: 1
mode: report
floor:
  socketFamilies: {deny: [AF_TIPC], errno: EPERM}
  socketcall: allow
  ioUring: allow
  syscalls: {keyctl: ENOSYS, bpf: EPERM}
apply: {runtimeHandlers: ["", kata], noProfile: hardened}
optOut: {honour: false, namespaces: [kube-system, "*"]}
onUnprovable: admit
onBreach: kill
"""
    assert parse_policy(text, "policy.yaml") == Policy(
        Mode.REPORT,
        Floor(("AF_TIPC",), errno.EPERM, False, False, (("keyctl", errno.ENOSYS), ("bpf", errno.EPERM))),
        Apply(("", "kata"), OnNoProfile.HARDENED),
        OptOut(False, ("kube-system", "*")),
        OnUnprovable.ADMIT,
        OnBreach.KILL,
    )


def test_mode_log_lets_the_kernel_log() -> None:
    assert parse_policy(b"mode: log", "policy.yaml").floor.action is Action.LOG
    assert parse_policy(b"mode: report", "policy.yaml").floor.action is Action.ERRNO


def test_every_family_has_its_name() -> None:
    """All at once, since some go only together."""
    text = f"floor: {{socketFamilies: {{deny: [{', '.join(FAMILIES)}]}}}}"
    assert parse_policy(text.encode(), "policy.yaml").floor.numbers == tuple(range(46))


KEYS = "expected only the keys apply, floor, mode, onBreach, onUnprovable, optOut, version"
ERRNO = "expected the name of an errno (EPERM, EAFNOSUPPORT, ENOSYS, ...)"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("modus: log", f"the policy: {KEYS}, got 'modus'"),
        ("Mode: log", f"the policy: {KEYS}, got 'Mode'"),
        ("version: 2", "version: expected 1, got 2"),
        ("version: '1'", "version: expected 1, got '1'"),
        ("version: 1.0", "version: expected 1, got 1.0"),
        ("version: true", "version: expected 1, got true"),
        ("version:", "version: expected 1, got null"),
        ("mode:", "mode: expected one of enforce, log, report, got null"),
        ("mode: Enforce", "mode: expected one of enforce, log, report, got 'Enforce'"),
        ("mode: [log]", "mode: expected one of enforce, log, report, got an array of 1 items"),
        ("mode: off", "mode: expected one of enforce, log, report, got false"),
        ("floor:", "floor: expected a mapping, got null"),
        ("floor: [AF_ALG]", "floor: expected a mapping, got an array of 1 items"),
        ("floor: {families: []}", "floor: expected only the keys ioUring, socketFamilies, socketcall, syscalls, got 'families'"),
        ("floor: {socketFamilies: [AF_ALG]}", "floor.socketFamilies: expected a mapping, got an array of 1 items"),
        ("floor: {socketFamilies: {allow: []}}", "floor.socketFamilies: expected only the keys deny, errno, got 'allow'"),
        ("floor: {socketFamilies: {deny: AF_ALG}}", "floor.socketFamilies.deny: expected a list of strings, got 'AF_ALG'"),
        ("floor: {socketFamilies: {deny: }}", "floor.socketFamilies.deny: expected a list of strings, got null"),
        ("floor: {socketFamilies: {deny: [AF_ALG, 40]}}", "floor.socketFamilies.deny[1]: expected a string, got 40"),
        (
            "floor: {socketFamilies: {deny: [AF_ALG, AF_VSOK]}}",
            "floor.socketFamilies.deny[1]: expected the name of a socket family (AF_ALG, AF_VSOCK, ...), got 'AF_VSOK'",
        ),
        (
            "floor: {socketFamilies: {errno: 97}}",
            f"floor.socketFamilies.errno: {ERRNO}, got 97",
        ),
        (
            "floor: {socketFamilies: {errno: eperm}}",
            f"floor.socketFamilies.errno: {ERRNO}, got 'eperm'",
        ),
        (
            "floor: {socketFamilies: {errno: errorcode}}",
            f"floor.socketFamilies.errno: {ERRNO}, got 'errorcode'",
        ),
        (
            "floor: {socketFamilies: {errno: }}",
            f"floor.socketFamilies.errno: {ERRNO}, got null",
        ),
        ("floor: {socketcall: true}", "floor.socketcall: expected one of deny, allow, got true"),
        ("floor: {socketcall: broker}", "floor.socketcall: expected one of deny, allow, got 'broker'"),
        ("floor: {ioUring: no}", "floor.ioUring: expected one of deny, allow, got false"),
        ("floor: {syscalls: [bpf]}", "floor.syscalls: expected a mapping, got an array of 1 items"),
        ("floor: {syscalls: {bpf: deny}}", f"floor.syscalls.bpf: {ERRNO}, got 'deny'"),
        ("floor: {syscalls: {bpf: }}", f"floor.syscalls.bpf: {ERRNO}, got null"),
        ("floor: {syscalls: {'': EPERM}}", "floor.syscalls: expected the name of a system call, got ''"),
        ("floor: {syscalls: {sys.bpf: EPERM}}", "floor.syscalls: expected the name of a system call, got 'sys.bpf'"),
        ("apply: {runtimeHandlers: '*'}", "apply.runtimeHandlers: expected a list of strings, got '*'"),
        ("apply: {runtimeHandlers: [runc, ~]}", "apply.runtimeHandlers[1]: expected a string, got null"),
        ("apply: {noProfile: none}", "apply.noProfile: expected one of floor, hardened, got 'none'"),
        ("optOut: true", "optOut: expected a mapping, got true"),
        ("optOut: {honour: 1}", "optOut.honour: expected true or false, got 1"),
        ("optOut: {honor: false}", "optOut: expected only the keys honour, namespaces, got 'honor'"),
        ("optOut: {namespaces: {a: b}}", "optOut.namespaces: expected a list of strings, got an object of 1 keys"),
        ("onUnprovable: kill", "onUnprovable: expected one of reject, admit, got 'kill'"),
        ("onBreach: reject", "onBreach: expected one of report, kill, got 'reject'"),
        ("enforce", "the policy: expected a mapping, got 'enforce'"),
        ("[]", "the policy: expected a mapping, got an empty array"),
        # YAML's own mistakes
        ("mode: log\nmode: enforce", "line 2, column 1: key 'mode' given twice"),
        ("mode: log\n'mode': enforce", "line 2, column 1: key 'mode' given twice"),
        ("floor: {syscalls: {bpf: EPERM, bpf: ENOSYS}}", "line 1, column 32: key 'bpf' given twice"),
        ("1: 2", "line 1, column 1: a key that is not a string"),
        ("yes: no", "line 1, column 1: a key that is not a string"),
        ("[a]: 1", "line 1, column 1: a key that is not a string"),
        ("? {a: b}\n: 1", "line 1, column 3: a key that is not a string"),
        ("<<: {mode: log}", "line 1, column 1: a key that is not a string"),
        ("mode: !!str log", "line 1, column 7: anchors, aliases and tags are not for policies"),
        ("mode: !!bool maybe", "line 1, column 7: anchors, aliases and tags are not for policies"),
        ("mode: !!python/object/apply:os.getpid []", "line 1, column 7: anchors, aliases and tags are not for policies"),
        ("mode: ! log", "line 1, column 7: anchors, aliases and tags are not for policies"),
        ("mode: &m log", "line 1, column 7: anchors, aliases and tags are not for policies"),
        ("mode: *m", "line 1, column 7: anchors, aliases and tags are not for policies"),
        ("mode: [log", "line 1, column 11: while parsing a flow sequence, expected ',' or ']', but got '<stream end>'"),
        (
            "mode: log\n\tx: 1",
            "line 2, column 1: while scanning for the next token, found character '\\t' that cannot start any token",
        ),
        (
            "---\nmode: log\n---\nmode: log",
            "line 3, column 1: expected a single document in the stream, but found another document",
        ),
        ("mode: 2026-13-45", "not YAML: month must be in 1..12"),
        ("mode: 0x_", "not YAML: invalid literal for int() with base 16: ''"),
        ("mode: \0", "not YAML: unacceptable character #x0000: special characters are not allowed"),
    ],
)  # fmt: skip
def test_every_mistake_has_its_sentence(text: str, said: str) -> None:
    with pytest.raises(PolicyError) as caught:
        parse_policy(text.encode(), "policy.yaml")
    assert str(caught.value) == f"policy.yaml: {said}"


def test_a_floor_that_cannot_be_kept() -> None:
    with pytest.raises(
        PolicyError, match=r"policy\.yaml: floor\.socketFamilies\.deny: expected AF_INET to be denied as well"
    ):
        parse_policy(b"floor: {socketFamilies: {deny: [AF_PACKET]}}", "policy.yaml")
    with pytest.raises(PolicyError, match=r"policy\.yaml: floor\.syscalls: expected socketcall to be named as well"):
        parse_policy(b"floor: {syscalls: {connect: EPERM}}", "policy.yaml")


def refusal(data: bytes) -> str | None:
    """Why this is no policy, None where it is one."""
    try:
        parse_policy(data, "policy.yaml")
    except PolicyError as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xfe\xfd",
        b"mode: \xc3\x28",
        b"[" * LARGEST,
        b"{a: " * (LARGEST // 4),
        b"- " * (LARGEST // 2),
        b"version: " + b"1:" * 20_000 + b"1",
        b"version: " + b"9" * 100_000,
        b"mode: " + b"x" * (LARGEST - 10),
        b'"' + b"\\n" * 60_000 + b'": 1',
        b"floor: {syscalls: {" + b"a" * 100_000 + b": EPERM}}",
        b"#" * (LARGEST + 1),
        # what an alias, or a merged mapping, would make huge
        b"a: &a [1]\nb: &b [*a, *a]\n",
        b"a: &a {x: 1}\nb: {<<: [*a, *a]}\n",
        b"&a [*a]",
    ],
    ids=lambda data: repr(data[:12]),
)
def test_what_is_no_policy_is_told_so_in_one_short_line(data: bytes) -> None:
    said = refusal(data)
    assert said is not None
    assert said.startswith("policy.yaml: ")
    assert said.isprintable()
    assert len(said) < 600


def test_utf_16_is_yaml_too() -> None:
    assert parse_policy("mode: log".encode("utf-16"), "policy.yaml").mode is Mode.LOG


TOKENS = """
mode floor version 1 log socketFamilies deny syscalls bpf EPERM AF_ALG honour true ~ = << !!bool !!int !x &a *a 2026-01-01 0b 1:6
1e9 .inf 0x_ - ? [ ] { } : , ' " # | > % --- ... é
"""
WORDS = st.sampled_from(
    [*TOKENS.split(), " ", ": ", "? ", "\n", "\n  ", "\t", "\0", "\N{NEXT LINE}", "\N{LINE SEPARATOR}"]
)


@given(st.lists(WORDS, max_size=25).map("".join).map(str.encode) | st.binary(max_size=40))
@example(b"mode: .inf")
@example(b"=: 1")
@example(b"0b: 1")
@example(b"mode: -_")
def test_any_text_at_all(data: bytes) -> None:
    """A policy, or one line that says why not."""
    said = refusal(data)
    assert said is None or (said.startswith("policy.yaml: ") and said.isprintable())


def test_a_named_file_must_be_there(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    with pytest.raises(PolicyError, match=r"policy\.yaml: cannot read the policy: No such file or directory"):
        load_policy(path)
    path.write_text("mode: report")
    assert load_policy(path).mode is Mode.REPORT


def test_a_directory_is_no_policy(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="cannot read the policy: Is a directory"):
        load_policy(tmp_path)


def test_an_unreadable_file_is_no_policy(tmp_path: Path) -> None:
    """Even for root: a file of a process that may not be opened so."""
    path = tmp_path / "policy.yaml"
    path.symlink_to(path)
    with pytest.raises(PolicyError, match="cannot read the policy: Too many levels of symbolic links"):
        load_policy(path)


def test_a_large_file_is_not_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    with path.open("wb") as file:
        os.truncate(file.fileno(), 1 << 40)
    with pytest.raises(PolicyError, match=f"larger than {LARGEST} bytes"):
        load_policy(path)


@pytest.mark.parametrize("data", [b"", b" \n\n"])
def test_a_file_without_content_is_no_policy(data: bytes) -> None:
    """A full disk leaves such files."""
    with pytest.raises(PolicyError, match=r"policy\.yaml: the file is empty"):
        parse_policy(data, "policy.yaml")


def test_the_default_path_may_be_empty_but_not_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing there is the built-in policy; something there that cannot be read is not."""
    path = tmp_path / "etc" / "policy.yaml"
    monkeypatch.setattr(policy_file, "DEFAULT_PATH", path)
    assert load_policy(None) == Policy()
    path.parent.mkdir()
    assert load_policy(None) == Policy()
    path.write_text("onBreach: kill")
    assert load_policy(None).on_breach is OnBreach.KILL
    path.unlink()
    path.symlink_to("..data/policy.yaml")
    with pytest.raises(PolicyError, match="No such file"):
        load_policy(None)
    path.unlink()
    path.mkdir()
    with pytest.raises(PolicyError, match="Is a directory"):
        load_policy(None)
