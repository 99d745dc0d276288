"""What a runtime's command line asks for, as far as the wrapper must know.

runc (Go's flag package) and crun (getopt) read some command lines differently: ``-b=DIR`` is ``DIR`` to one and ``=DIR`` to the
other. A wrapper that misread the bundle would put the wrong one under the floor, so it takes only what both read alike, which is
what engines write, and refuses the rest. Sources: runc's main.go, create.go and run.go, urfave/cli; crun's crun.c and create.c.
"""

from seccomp_floor.errors import SeccompFloorError

__all__ = ["MAKE_CONTAINERS", "CommandLineError", "Request", "parse"]

MAKE_CONTAINERS = ("create", "run", "restore")

# These cannot make a container. A command that is not known might: it is refused.
OTHER_COMMANDS = (
    "checkpoint", "delete", "events", "exec", "features", "h", "help", "kill", "list", "mounts", "pause", "ps", "resume", "spec",
    "start", "state", "update",
)  # fmt: skip

GLOBAL_VALUES = ("--cgroup-manager", "--criu", "--log", "--log-format", "--log-level", "--root", "--rootless")
GLOBAL_SWITCHES = ("--debug", "--systemd-cgroup")
TELL_AND_EXIT = ("--help", "-h", "--version", "-v", "-V", "-?", "--usage")

VALUES = ("--bundle", "-b", "--console-socket", "--pid-file", "--pidfd-socket", "--preserve-fds")
SWITCHES = ("--detach", "-d", "--keep", "--no-new-keyring", "--no-pivot", "--no-subreaper")
OTHER_CONFIG = ("--config", "-f")


class CommandLineError(SeccompFloorError):
    """The command line cannot be read with certainty."""


class Request:
    """What is asked for. ``command``: "" where there is none, or where help or a version is asked for; ``bundle``: as given."""

    def __init__(self) -> None:
        self.command = ""
        self.bundle = "."
        self.log = ""
        self.log_format = "text"


def parse(arguments: list[str], request: Request) -> None:
    """Read a command line (without the program) into a request.

    The request is filled in as far as reading comes, so that an error can be reported to the log it names.

    :raises CommandLineError: an option or a command that runc and crun do not read alike, or that is not known
    """
    rest = arguments[::-1]
    while rest:
        argument = rest.pop()
        name, equals, value = argument.partition("=")
        if argument in TELL_AND_EXIT:
            return
        if name in GLOBAL_VALUES:
            value = value if equals else _value_of(name, rest)
            if name == "--log":
                request.log = value.removeprefix("file:")  # crun's way to write it
            elif name == "--log-format":
                request.log_format = value
        elif name in GLOBAL_SWITCHES:
            continue
        elif argument in MAKE_CONTAINERS:
            if rest and rest[-1] in ("--help", "-h"):
                return
            if argument != "restore":  # which is refused, whatever its options
                _parse_bundle(rest, request)
            request.command = argument
            return
        elif argument in OTHER_COMMANDS:
            return
        else:
            kind = "global option" if argument.startswith("-") else "command"
            raise CommandLineError(f"{kind} {argument!a} is not known to seccomp-floor, and might make a container")


def _parse_bundle(rest: list[str], request: Request) -> None:
    """The options and the one operand of create and run; ``rest`` has the next argument at its end."""
    while rest and rest[-1].startswith("-") and rest[-1] != "-":
        argument = rest.pop()
        name, equals, value = argument.partition("=")
        if argument == "--":
            break
        if name in OTHER_CONFIG:
            raise CommandLineError(f"{name}: seccomp-floor knows a bundle's config.json only")
        if name in VALUES and not (equals and name == "-b"):
            value = value if equals else _value_of(name, rest)
            if name in ("--bundle", "-b"):
                request.bundle = value or "."
        elif name in SWITCHES:
            continue
        elif not equals or not name.startswith("--") or _abbreviates(name):  # --new=value is an option and its value
            raise CommandLineError(f"option {argument!a}: runtimes may differ in what it means; is it --bundle PATH?")
    if len(rest) != 1:
        raise CommandLineError(f"one container id is expected after the options, found {len(rest)} arguments")


def _abbreviates(name: str) -> bool:
    """getopt, and so crun, takes the beginning of an option for the whole."""
    return any(option.startswith(name) for option in (*VALUES, *OTHER_CONFIG))


def _value_of(name: str, rest: list[str]) -> str:
    if not rest:
        raise CommandLineError(f"option {name} has no value")
    return rest.pop()
