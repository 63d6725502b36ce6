"""Sweeps on a real Ray cluster of two nodes, which is started once on this machine."""

import pytest
from crews import *  # noqa: F403


@pytest.fixture(scope="module")
def cluster():
    """Two nodes of one CPU each."""
    patch = pytest.MonkeyPatch()
    patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    from ray.cluster_utils import Cluster

    settings = {"num_cpus": 1, "object_store_memory": 80 << 20}
    nodes = Cluster(initialize_head=True, head_node_args={**settings, "include_dashboard": False})
    nodes.add_node(**settings)
    nodes.wait_for_nodes()
    yield nodes
    nodes.shutdown()
    patch.undo()


@pytest.fixture
def crew(cluster) -> list[str]:
    return ["hydra/launcher=ray", f"hydra.launcher.address={cluster.address}"]
