"""Objects that tests give to the API server: pods of the probe, and the repository's own deployment."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from testcluster.daemon_image import ROOT
from testnode import image

KUSTOMIZATIONS = ROOT / "deploy" / "kubernetes"
NAMESPACE = "seccomp-floor"
TOLERATION = "tolerate-missing.seccomp-floor.nri.io/pod"
OPT_OUT = "opt-out.seccomp-floor.nri.io/pod"
MAY_TOLERATE = "seccomp-floor.nri.io/may-tolerate-missing"
MAY_OPT_OUT = "seccomp-floor.nri.io/may-opt-out"

Manifest = dict[str, Any]


def namespace(name: str, *labels: str) -> Manifest:
    """A namespace with these labels, each "true"."""
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name, "labels": dict.fromkeys(labels, "true")},
    }


def runtime_class(name: str) -> Manifest:
    """A RuntimeClass for the handler of the same name."""
    return {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": name}, "handler": name}


def container(name: str = "probe", **fields: Any) -> Manifest:
    """A container that sleeps, and in which the probe can be run."""
    return {"name": name, "image": image.NAME, "imagePullPolicy": "Never", **fields}


def pod(
    name: str,
    namespace: str = "default",
    *,
    annotations: Mapping[str, str] | None = None,
    seccomp: Mapping[str, str] | None = None,
    container_fields: Mapping[str, Any] | None = None,
    **fields: Any,
) -> Manifest:
    """A pod of one such container; `seccomp` is the pod's profile, other `fields` are of its spec."""
    spec: Manifest = {
        "hostNetwork": True,
        "terminationGracePeriodSeconds": 1,
        "containers": [container(**(container_fields or {}))],
        **fields,
    }
    if seccomp is not None:
        spec["securityContext"] = {"seccompProfile": dict(seccomp)}
    metadata = {"name": name, "namespace": namespace, "annotations": dict(annotations or {})}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def write_overlay(
    directory: Path,
    base: str,
    *,
    image: str,
    host_paths: Mapping[str, Path],
    policy: str | None = None,
    components: Sequence[str] = (),
) -> Path:
    """A kustomization of `base`, one of the repository's, as a user would write it for a node of their own.

    `image` with its tag; `host_paths` of the DaemonSet's volumes by name; `policy` in place of the repository's.
    """
    directory.mkdir(exist_ok=True)
    name, _, tag = image.rpartition(":")
    volumes = [{"name": volume, "hostPath": {"path": str(path)}} for volume, path in host_paths.items()]
    patch = {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": NAMESPACE, "namespace": NAMESPACE},
        "spec": {"template": {"spec": {"volumes": volumes}}},
    }
    overlay: Manifest = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [os.path.relpath(KUSTOMIZATIONS / base, directory)],
        "components": [os.path.relpath(KUSTOMIZATIONS / "components" / each, directory) for each in components],
        "images": [{"name": "seccomp-floor", "newName": name, "newTag": tag}],
        "patches": [{"patch": json.dumps(patch)}],
    }
    if policy is not None:
        (directory / "policy.yaml").write_text(policy)
        overlay["configMapGenerator"] = [
            {
                "name": "seccomp-floor-policy",
                "namespace": NAMESPACE,
                "behavior": "replace",
                "files": ["policy.yaml"],
                "options": {"immutable": True},
            }
        ]
    (directory / "kustomization.yaml").write_text(json.dumps(overlay, indent=2))
    return directory
