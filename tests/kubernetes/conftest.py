"""One cluster for all tests here: a node with the repository's own drop-in, and the repository's own deployment in it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from testcluster import Cluster
from testcluster.daemon_image import ROOT, ImageBuilder
from testcluster.deployment import Deployment
from testcluster.manifests import (
    MAY_OPT_OUT,
    MAY_TOLERATE,
    namespace,
    runtime_class,
)
from testnode import Handler

HANDLERS = (Handler(), Handler(name="floored"), Handler(name="plain"))


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Kubernetes, whose containerd reads the repository's drop-ins; and nothing of ours in it yet."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    with Cluster(handlers=HANDLERS, imports=sorted((ROOT / "deploy" / "containerd").glob("*.toml"))) as cluster:
        cluster.kubectl.apply(
            namespace("may-opt-out", MAY_OPT_OUT),
            namespace("may-tolerate", MAY_TOLERATE),
            namespace("ordinary"),
            runtime_class("floored"),
            runtime_class("plain"),
        )
        yield cluster


@pytest.fixture(scope="session")
def builder(cluster: Cluster) -> ImageBuilder:
    """What makes the daemon's image."""
    return ImageBuilder(cluster.scratch.path / "images")


@pytest.fixture(scope="session")
def deployment(cluster: Cluster, builder: ImageBuilder) -> Deployment:
    """The repository's deployment, ready to be applied."""
    image = "localhost/seccomp-floor:1"
    cluster.containerd.import_image(builder.build(image))
    return Deployment(cluster, image)


@pytest.fixture(scope="session")
def deployed(deployment: Deployment) -> Deployment:
    """The deployment, applied and ready on the node."""
    deployment.apply()
    deployment.wait()
    return deployment
