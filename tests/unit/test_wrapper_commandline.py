"""Command lines as engines write them, and those that runc and crun would not read alike."""

from __future__ import annotations

from pathlib import Path

import pytest

import seccomp_floor.runtime
from seccomp_floor import decide
from seccomp_floor.policy_file import DEFAULT_PATH
from seccomp_floor.runtime import commandline, judging, wrapper
from seccomp_floor.runtime.commandline import CommandLineError, Request, parse

LAUNCHER = Path(seccomp_floor.runtime.__file__).parents[2] / "launcher" / "seccomp-floor-runc"


def read(line: str) -> Request:
    """The request of a command line; a lone + stands for an empty word."""
    request = Request()
    parse(["" if word == "+" else word for word in line.split()], request)
    return request


@pytest.mark.parametrize(
    ("line", "command", "bundle", "log"),
    [
        # containerd's shim, Docker's, Podman's conmon, CRI-O's, and by hand
        ("--root /r --log /b/l --log-format json --systemd-cgroup create --bundle /b --pid-file /b/p id", "create", "/b", "/b/l"),
        ("--log-format=json --log=/c/log create --bundle /c --pid-file /c/pid --no-new-keyring id", "create", "/c", "/c/log"),
        ("--root=/r --systemd-cgroup create --bundle /c --pid-file /c/pid --preserve-fds=2 id", "create", "/c", ""),
        ("run id", "run", ".", ""),
        ("--debug run -d -b rel id", "run", "rel", ""),
        ("run --detach=true --bundle=rel -- id", "run", "rel", ""),
        ("run --bundle a -b b id", "run", "b", ""),
        ("run --bundle + id", "run", ".", ""),
        ("run --new-option=value id", "run", ".", ""),
        ("--log file:/l restore --bundle /b --image-path /i id", "restore", ".", "/l"),
        # no container is made of these
        ("", "", ".", ""),
        ("--root create state id", "", ".", ""),
        ("state create", "", ".", ""),
        ("exec -t id run", "", ".", ""),
        ("--version create", "", ".", ""),
        ("--root=/r --help run", "", ".", ""),
    ],
)  # fmt: skip
def test_read(line: str, command: str, bundle: str, log: str) -> None:
    """What the wrapper must know of it."""
    request = read(line)
    assert (request.command, request.bundle, request.log) == (command, bundle, log)


@pytest.mark.parametrize(
    "line",
    [
        "-root /r create id",  # one dash: runc's --root, crun's nothing
        "--unknown create id",
        "--unknown=x create id",
        "--root",
        "clone id",  # not known: it might make a container
        "create",
        "create --bundle",
        "create a b",
        "create id --bundle /b",  # runc reads it, crun does not
        "create -b/b id",
        "create -b=/b id",
        "create -bundle /b id",
        "create -db /b id",
        "create --bund /b id",
        "create --unknown --bundle /b id",  # is --bundle its value?
        "create --config /c id",
        "run -f /c id",
        "run --bund=/evil id",
        "run --conf=/evil/config.json --bundle /good id",
    ],
)
def test_refused(line: str) -> None:
    """With a sentence that names the word."""
    with pytest.raises(CommandLineError):
        read(line)


def test_an_error_finds_its_log() -> None:
    """What was read before the error stays."""
    request = Request()
    with pytest.raises(CommandLineError):
        parse(["--log", "/l", "--log-format", "json", "create", "--bund", "/b", "id"], request)
    assert (request.log, request.log_format) == ("/l", "json")


def test_the_launcher_knows_the_same_words() -> None:
    """What it sends on at once is what this module would send on."""
    script = LAUNCHER.read_text().replace("\\\n", "")
    body = script[script.index("case $argument in\n") :].partition("\n")[2]
    patterns = [branch.strip().partition(")")[0] for branch in body[: body.index("        *) break")].split(";;")]
    values, with_values, switches, passed_on = (
        {word.strip().strip("'") for word in pattern.split("|")} for pattern in patterns if pattern
    )
    assert values == set(commandline.GLOBAL_VALUES)
    assert with_values == {f"{name}=*" for name in commandline.GLOBAL_VALUES}
    assert switches == set(commandline.GLOBAL_SWITCHES)
    assert passed_on == {*commandline.OTHER_COMMANDS, *commandline.TELL_AND_EXIT}


def test_the_annotations_that_matter_are_known() -> None:
    """A bundle without them may have its outcome from the cache."""
    assert wrapper.SPECIAL_ANNOTATIONS == (decide.ANNOTATION, judging.SECCOMP_BPF_DATA)


def test_the_policy_is_where_everything_else_looks_for_it() -> None:
    """The wrapper has the path as text, since pathlib takes long to import."""
    assert Path(wrapper.POLICY) == DEFAULT_PATH
