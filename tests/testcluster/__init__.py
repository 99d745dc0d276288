"""A Kubernetes of one's own for tests: etcd, the control plane, a kubelet and the test node's containerd."""

from testcluster.cluster import Cluster
from testcluster.kubectl import Kubectl, KubectlError
from testcluster.process import ClusterError

__all__ = ["Cluster", "ClusterError", "Kubectl", "KubectlError"]
