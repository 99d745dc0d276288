"""kubectl, as a user would call it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WAIT_SECONDS = 120


class KubectlError(Exception):
    """The API server, the kubelet or kubectl itself said no; the message is what it said."""


@dataclass(frozen=True, slots=True)
class Kubectl:
    """With the credentials of a kubeconfig."""

    program: Path
    credentials: Path
    environment: Mapping[str, str]

    def __call__(self, *arguments: str | Path, given: str | None = None) -> str:
        """Standard output of a command that gets `given` on its standard input."""
        command = [self.program, "--kubeconfig", self.credentials, *arguments]
        done = subprocess.run(
            command, input=given, capture_output=True, text=True, check=False, env=self.environment, timeout=300
        )
        if done.returncode != 0:
            raise KubectlError(done.stderr.strip() or done.stdout.strip())
        return done.stdout

    def get(self, *arguments: str) -> dict[str, Any]:
        """An object, or a list of them."""
        answer: dict[str, Any] = json.loads(self("get", *arguments, "--output=json"))
        return answer

    def apply(self, *objects: Mapping[str, Any]) -> None:
        """Make objects what they are given as."""
        self("apply", "--filename=-", given=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}))

    def create(self, manifest: Mapping[str, Any], *, dry_run: bool = False) -> None:
        """Create an object, or have the API server say whether it would be."""
        server = ["--dry-run=server"] if dry_run else []
        self("create", "--filename=-", *server, given=json.dumps(manifest))

    def post(self, path: str, body: Mapping[str, Any]) -> None:
        """A request of the API that kubectl has no word for."""
        self("create", f"--raw={path}", "--filename=-", given=json.dumps(body))

    def wait_for(self, what: str, condition: str, *arguments: str, seconds: float = WAIT_SECONDS) -> None:
        """Return when the condition of an object is true."""
        self("wait", what, f"--for=condition={condition}", f"--timeout={seconds}s", *arguments)

    def exec(self, pod: str, command: Sequence[str], *arguments: str) -> str:
        """Standard output of a command in a pod's container."""
        return self("exec", pod, *arguments, "--", *command)
