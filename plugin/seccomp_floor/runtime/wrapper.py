"""Put the bundle under the floor, then become the runtime."""

import os
import sys

# `signal` would be the proper name; it brings `enum` with it, which takes as long as the rest of the way.
from _signal import SIG_DFL, SIGPIPE, SIGXFSZ, signal  # type: ignore[import-not-found]

from seccomp_floor.errors import SeccompFloorError
from seccomp_floor.runtime import bundle
from seccomp_floor.runtime.cache import Cache, Outcome, pack
from seccomp_floor.runtime.commandline import Request, parse
from seccomp_floor.runtime.config import Config
from seccomp_floor.runtime.report import report

__all__ = ["POLICY", "main"]

POLICY = "/etc/seccomp-floor/policy.yaml"

FAILED = 1  # what runc and crun exit with when they cannot do what is asked

SPECIAL_ANNOTATIONS = ("opt-out.seccomp-floor.nri.io", "run.oci.seccomp_bpf_data")
"""How annotations begin that bear on the outcome; seldom seen."""


class RefusedError(SeccompFloorError):
    """What the wrapper does not let the runtime do."""


def main(runtime: str, arguments: list[str]) -> int:
    """Run the runtime with these arguments, in place of this process, once the bundle they name is under the floor.

    :param runtime: absolute path of the real runtime
    :return: an exit code, where it comes to that: errors have been reported where the runtime would have reported them
    """
    request = Request()
    try:
        parse(arguments, request)
        if request.command == "restore":
            raise RefusedError(
                "restore: a checkpoint brings its own seccomp filters, which nobody has proven; "
                f"to restore it without the floor, call {runtime} itself"
            )
        if request.command:
            _floor(request, runtime)
        _become(runtime, arguments)
    except SeccompFloorError as error:
        message = str(error)
    except OSError as error:
        message = f"{runtime}: {error.strerror}"
    except Exception as error:  # noqa: BLE001 (a mistake of ours: the engine must hear of it, and there must be no container)
        message = f"internal error: {type(error).__name__}: {error}"
    report(f"seccomp-floor: {message}", "error", request.log, request.log_format)
    return FAILED


def _floor(request: Request, runtime: str) -> None:
    text, status = bundle.read(request.bundle)
    config = Config(text)
    outcome = _outcome(config, runtime)
    if outcome.section is not None:
        bundle.replace(request.bundle, config.with_section(outcome.section, outcome.mark), status)
    for warning in outcome.warnings:
        report(f"seccomp-floor: {warning}", "warning", request.log, request.log_format)


def _outcome(config: Config, runtime: str) -> Outcome:
    policy = _read_policy()
    question = pack(
        [
            b"no policy" if policy is None else b"policy",
            policy or b"",
            os.fsencode(runtime),
            os.fsencode(os.uname().machine),
            b"no section" if config.section is None else b"section",
            os.fsencode(config.section or ""),
        ]
    )
    usual = not any(key.startswith(SPECIAL_ANNOTATIONS) for key in config.annotations)
    cache = Cache.of_user()
    outcome = cache.get(question) if usual else None
    if outcome is None:
        if sys.flags.no_site:  # the launcher's: without the directories of our dependencies
            import site

            site.main()
        from seccomp_floor.runtime.judging import work_out

        outcome, rests_on = work_out(config, policy, runtime)
        if usual:
            cache.put(question, outcome, rests_on)
    return outcome


def _read_policy() -> bytes | None:
    """The policy's bytes, which are part of the question; None where there is none, and the built-in one holds."""
    try:
        file = os.open(POLICY, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RefusedError(f"{POLICY}: cannot read the policy: {error.strerror}") from None
    try:
        data = b""
        while len(data) <= bundle.LARGEST and (more := os.read(file, bundle.LARGEST)):
            data += more
        return data
    except OSError as error:
        raise RefusedError(f"{POLICY}: cannot read the policy: {error.strerror}") from None
    finally:
        os.close(file)


def _become(runtime: str, arguments: list[str]) -> None:
    """Replace this process by the runtime, which is to find everything as it would have been without us.

    Python ignored two signals when it started, and what is ignored stays so across exec, down to the container's first process. And
    its locale may have added a variable to the environment.
    """
    signal(SIGPIPE, SIG_DFL)
    signal(SIGXFSZ, SIG_DFL)
    with open("/proc/self/environ", "rb") as file:
        environment = dict(pair.partition(b"=")[::2] for pair in file.read().split(b"\0") if b"=" in pair)
    os.execve(runtime, [runtime, *arguments], environment)  # noqa: S606
