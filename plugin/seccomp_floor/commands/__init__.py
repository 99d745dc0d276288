"""The commands, a module each; what they share (options, output, exit codes) is in :mod:`seccomp_floor.commands.common`."""
