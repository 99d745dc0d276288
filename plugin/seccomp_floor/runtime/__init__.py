"""The OCI runtime wrapper: runc's command line, with every container that it makes under the floor.

It stands in front of every call of the runtime, so most of it is about doing nothing quickly. Three steps, each reached only
when the one before cannot answer:

1. the launcher, a POSIX shell script (``launcher/seccomp-floor-runc``): every command that cannot make a container goes to the
   real runtime at once;
2. the modules that :mod:`.wrapper` imports: read the bundle, find the section proven for it earlier, write it, ``exec``. They
   use nothing of the standard library that is not built into the interpreter: ``json`` alone, with the ``re`` and ``enum`` that
   it brings, would cost as much as starting Python;
3. :mod:`.judging`: policy, decision, reconciliation and proof, with all that they import.

The real runtime replaces the wrapper by ``exec``, with the same arguments, environment and descriptors: whoever started it sees
the process that it started.
"""
