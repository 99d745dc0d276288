"""Kubernetes' own programs and etcd, built once from their Go modules into the cache that the test node uses too."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

from testnode.programs import Module, SetupError, built, cache, need_go, run_with_progress

KUBERNETES = "v1.36.3"
ETCD = "v3.6.8"
HELM = "v4.3.1"
OPERATOR = "v0.85.0"
KUSTOMIZE = "v5.8.1"
"""As in the kubectl of that Kubernetes."""
COMMANDS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kubectl")
PROGRAMS = (*COMMANDS, "etcd")

DEBIAN_PACKAGES = ("buildah", "debootstrap", "openssl", "systemd")


def directory() -> Path:
    """Where the programs are, built if need be."""
    target = cache() / f"kubernetes-{KUBERNETES}"
    if not target.is_dir():
        target.parent.mkdir(parents=True, exist_ok=True)
        with (target.parent / f"{target.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not target.is_dir():  # somebody else may have built it while we waited
                build(target)
    return target


def helm() -> Path:
    """Helm, built if need be."""
    return built(Module("helm", "helm.sh/helm/v4", HELM, ("cmd/helm",), ("-ldflags", "-s -w"))) / "helm"


def kustomize() -> list[str]:
    """The command that builds a kustomization: kubectl's from PATH if it is new enough, else kustomize itself, built if need be."""
    if kubectl := shutil.which("kubectl"):
        asked = [kubectl, "version", "--client", "--output=json"]
        answer = subprocess.run(asked, capture_output=True, text=True, check=False).stdout
        if re.search(r'"kustomizeVersion": "v[5-9]', answer):
            return [kubectl, "kustomize"]
    return [str(built(Module("kustomize", "sigs.k8s.io/kustomize/kustomize/v5", KUSTOMIZE, ())) / "kustomize"), "build"]


def build(target: Path) -> None:
    """``go install`` within a module of our own, into a directory that gets its name only when it is complete.

    Kubernetes' staging modules are required as v0.0.0 and replaced by directories of its repository, which are not part
    of the module: whoever builds it elsewhere replaces them by what was published of each.
    """
    need_go()
    part = target.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    (part / "bin").mkdir(parents=True)
    (part / "go.mod").write_text(module_file(staging_modules()))
    version = f"-X k8s.io/component-base/version.gitVersion={KUBERNETES}"
    packages = [f"k8s.io/kubernetes/cmd/{name}" for name in COMMANDS] + ["go.etcd.io/etcd/server/v3"]
    run_with_progress(
        f"building Kubernetes {KUBERNETES} and etcd {ETCD} from their Go modules: some 2000 steps",
        ["go", "-C", str(part), "install", "-v", "-trimpath", "-ldflags", f"-s -w {version}", *packages],
        {**os.environ, "GOBIN": str(part / "bin"), "CGO_ENABLED": "0", "GOFLAGS": "-mod=mod -buildvcs=false"},
    )
    (part / "bin" / "server").rename(part / "bin" / "etcd")  # its package is called so
    missing = [name for name in PROGRAMS if not (part / "bin" / name).exists()]
    if missing:
        raise SetupError(f"the build of Kubernetes {KUBERNETES} left no {', '.join(missing)}")
    (part / "bin").rename(target)
    shutil.rmtree(part)


def staging_modules() -> list[str]:
    """The modules that Kubernetes' go.mod replaces by directories of its repository."""
    text = Path(downloaded("k8s.io/kubernetes", KUBERNETES)["GoMod"]).read_text()
    return re.findall(r"^\s*(\S+) => \./staging/", text, re.MULTILINE)


def downloaded(module: str, version: str) -> dict[str, str]:
    """Where Go keeps a module: its directory is `Dir`, its go.mod `GoMod`."""
    command = ["go", "mod", "download", "-json", f"{module}@{version}"]
    answer = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        raise SetupError(f"{' '.join(command)}: {answer.stderr.strip() or answer.stdout.strip()}")
    found: dict[str, str] = json.loads(answer.stdout)
    return found


def monitoring_definitions() -> list[Path]:
    """The Prometheus operator's own definitions of the kinds of objects that we give it."""
    directory = Path(downloaded("github.com/prometheus-operator/prometheus-operator", OPERATOR)["Dir"])
    definitions = directory / "example" / "prometheus-operator-crd"
    return [definitions / f"monitoring.coreos.com_{name}.yaml" for name in ("podmonitors", "prometheusrules")]


def module_file(staging: list[str]) -> str:
    """A go.mod that has Kubernetes and etcd at our versions, and each staging module at the one published with it."""
    published = f"v0{KUBERNETES.removeprefix('v1')}"
    replaced = "\n".join(f"\t{name} => {name} {published}" for name in staging)
    required = f"\tk8s.io/kubernetes {KUBERNETES}\n\tgo.etcd.io/etcd/server/v3 {ETCD}"
    return f"module testcluster\n\ngo 1.26.3\n\nrequire (\n{required}\n)\n\nreplace (\n{replaced}\n)\n"
