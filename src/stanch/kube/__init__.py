"""Kubernetes: which pods to watch, how their containers end, eviction, and who leads."""

from stanch.kube.cluster import Cluster, find_cluster
from stanch.kube.discovery import EVERYWHERE, KubeTargets
from stanch.kube.endings import ContainerEnd
from stanch.kube.errors import ClusterError, KubeError
from stanch.kube.leadership import Leadership
from stanch.kube.session import KubeSession

__all__ = [
    "EVERYWHERE",
    "Cluster",
    "ClusterError",
    "ContainerEnd",
    "KubeError",
    "KubeSession",
    "KubeTargets",
    "Leadership",
    "find_cluster",
]
