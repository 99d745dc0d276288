"""What gets no container: one clear error, where the runtime would have put it, and nothing half-written."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runtime.runtimes import Runtime, bundle, runtimes
from testnode.scratch import Scratch

pytestmark = pytest.mark.runtimes


@pytest.fixture(scope="module")
def wrapped(scratch: Scratch) -> Runtime:
    """The newest runc, behind the wrapper."""
    return runtimes(scratch)["runc v1.4.0"][1]


@pytest.fixture
def path(scratch: Scratch, request: pytest.FixtureRequest) -> Path:
    """A bundle for this test."""
    name = "".join(letter if letter.isalnum() else "-" for letter in request.node.name)[:60]
    return bundle(scratch, f"{name}-{time.monotonic_ns()}", args=["/bin/true"])


def change(config: Path, **linux: Any) -> None:
    """Set members of ``linux``."""
    spec = json.loads(config.read_text())
    spec["linux"] |= linux
    config.write_text(json.dumps(spec))


def annotate(config: Path, annotations: dict[str, str]) -> None:
    """Set the annotations."""
    config.write_text(json.dumps({**json.loads(config.read_text()), "annotations": annotations}))


def again(config: Path, text: str) -> None:
    """Put a text into a configuration, after its first brace."""
    config.write_text("{" + text + config.read_text()[1:])


def link(config: Path) -> None:
    """Make it a symbolic link to itself under another name."""
    config.rename(config.with_name("other.json"))
    config.symlink_to("other.json")


def fifo(config: Path) -> None:
    """Make it a FIFO, which nobody writes to."""
    config.unlink()
    os.mkfifo(config)


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda config: config.unlink(), "No such file"),
    "empty": (lambda config: config.write_text(""), "expected an object in JSON"),
    "not JSON": (lambda config: config.write_text("{'a': 1}"), "expected an object in JSON"),
    "an array": (lambda config: config.write_text("[]"), "expected an object in JSON"),
    "cut short": (lambda config: config.write_bytes(config.read_bytes()[:-3]), "expected an object in JSON"),
    "two documents": (lambda config: config.write_text(config.read_text() * 2), "expected an object in JSON"),
    "16 MiB": (lambda config: config.write_bytes(b" " * (16 << 20) + config.read_bytes()), "larger than"),
    "deep": (lambda config: again(config, '"a":' + "[" * 100_000 + "]" * 100_000 + ","), "nested too deeply"),
    "symbolic link": (link, "symbolic link"),
    "FIFO": (fifo, "regular file"),
    "linux twice": (lambda config: again(config, '"linux":{"seccomp":null},'), "given twice"),
    "Linux": (lambda config: again(config, '"Linux":{"seccomp":null},'), "read differently"),
    "linux is a list": (lambda config: config.write_text('{"linux":[]}'), "expected an object"),
    "no profile": (lambda config: change(config, seccomp={"defaultAction": "SCMP_ACT_MAYBE"}), "seccomp.defaultAction"),
    "unknown key": (lambda config: change(config, seccomp={"DefaultAction": "SCMP_ACT_ALLOW"}), "runtime-spec"),
    "filter of its own": (lambda config: annotate(config, {"run.oci.seccomp_bpf_data": "BgAAAAAA/38="}), "seccomp_bpf_data"),
    "opt-out, perhaps": (lambda config: annotate(config, {"opt-out.seccomp-floor.nri.io": "yes"}), 'expected "true" or "false"'),
}  # fmt: skip


@pytest.mark.parametrize("command", ["run", "create"])
@pytest.mark.parametrize("name", BAD)
def test_bad_bundles(wrapped: Runtime, path: Path, name: str, command: str) -> None:
    """The error is in the log and on stderr; the bundle is as it was; there is no container."""
    make, complaint = BAD[name]
    config, log = path / "config.json", path / "log.json"
    make(config)
    before = config.read_bytes() if config.is_file() else None
    files = {file.name for file in path.iterdir()}
    done = wrapped.run("--log", log, "--log-format", "json", command, "--bundle", path, "bad", check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("seccomp-floor: ")
    assert done.stderr.count("\n") == 1
    assert complaint in done.stderr
    (line,) = log.read_text().splitlines()
    entry = json.loads(line)
    assert entry["level"] == "error"
    assert entry["msg"] == done.stderr.rstrip("\n")
    assert (config.read_bytes() if config.is_file() else None) == before
    assert {file.name for file in path.iterdir()} == files | {"log.json"}
    assert wrapped.run("state", "bad", check=False).returncode == 1


def test_a_bundle_that_cannot_be_written(wrapped: Runtime, path: Path) -> None:
    """Mounted read-only, in a mount namespace of its own."""
    enter = ("unshare", "--mount", "sh", "-c", f'mount --bind -o ro {path} {path}; exec "$@"', "sh")
    runtime = Runtime(wrapped.scratch, wrapped.name, wrapped.program, wrapped.path, enter)
    done = runtime.run("run", "--bundle", path, "bad", check=False)
    assert done.returncode == 1
    assert "config.json: cannot be replaced: Read-only file system" in done.stderr


def test_restore_is_refused(wrapped: Runtime, path: Path) -> None:
    """A checkpoint has filters of its own."""
    done = wrapped.run("restore", "--bundle", path, "--image-path", path, "bad", check=False)
    assert done.returncode == 1
    assert "a checkpoint brings its own seccomp filters" in done.stderr


@pytest.mark.parametrize("line", ["--config other.json", "-bother", "-bundle other", "--unheard-of"])
def test_options_that_runtimes_read_differently(wrapped: Runtime, path: Path, line: str) -> None:
    """No guess which bundle is meant."""
    done = wrapped.run("run", *line.split(), "bad", check=False, cwd=path)
    assert done.returncode == 1
    assert "seccomp-floor: " in done.stderr


def test_a_runtime_that_is_not_there(wrapped: Runtime, scratch: Scratch) -> None:
    """Nothing on PATH but the wrapper, under the runtime's own name."""
    directory = scratch.path / "only-the-wrapper"
    directory.mkdir()
    (directory / "runc").symlink_to(wrapped.program)
    runtime = Runtime(scratch, "none", directory / "runc", str(directory))
    done = runtime.run("--version", check=False)
    assert done.returncode == 1
    assert "no runtime runc" in done.stderr


def test_a_runtime_of_another_kind(wrapped: Runtime, scratch: Scratch, path: Path) -> None:
    """It is not known what it would make of the section."""
    directory = scratch.path / "another-kind"
    directory.mkdir()
    (directory / "runc").symlink_to("/bin/true")
    runtime = Runtime(scratch, "none", wrapped.program, f"{directory}:/usr/bin:/bin")
    done = runtime.run("run", "--bundle", path, "bad", check=False)
    assert done.returncode == 1
    assert "runc or crun, with seccomp" in done.stderr
