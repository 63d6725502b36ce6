"""Sweeps on a real Ray cluster of two nodes, which is started once on this machine."""

import threading

import pytest
from cluster_laws import *  # noqa: F403
from cluster_laws import SLOW, results, until


@pytest.fixture(scope="module")
def cluster():
    """Two nodes of one CPU each."""
    patch = pytest.MonkeyPatch()
    patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    from ray.cluster_utils import Cluster  # noqa: PLC0415  a second, which this file alone needs

    settings = {"num_cpus": 1, "object_store_memory": 80 << 20}
    nodes = Cluster(initialize_head=True, head_node_args={**settings, "include_dashboard": False})
    nodes.add_node(**settings)
    nodes.wait_for_nodes()
    yield nodes
    nodes.shutdown()
    patch.undo()


@pytest.fixture
def workers(cluster) -> list[str]:
    cluster.wait_for_nodes(timeout=120)  # one that a test before has killed counts as alive for some seconds
    return ["hydra/launcher=ray", f"hydra.launcher.address={cluster.address}"]


@pytest.mark.turns
def test_a_model_is_kept_from_chunk_to_chunk(embedlab, gate, workers):
    code, out, err = embedlab("-m", *gate.words, *SLOW, *workers, "hydra.sweep.dir=out")
    assert code == 0, out + err
    assert "4 chunks by 2 workers on 2 nodes, weights read 2 times." in out


@pytest.mark.turns
def test_a_lost_node_costs_its_unfinished_cells(embedlab, gate, cluster, workers):
    node = cluster.add_node(num_cpus=2, object_store_memory=80 << 20)
    cluster.wait_for_nodes()

    def lose() -> None:
        until(lambda: len(gate.made()) >= 3)
        cluster.remove_node(node, allow_graceful=False)

    loses = threading.Thread(target=lose)
    loses.start()
    words = ["hydra.launcher.cpus=1", "hydra.launcher.workers=4", "hydra.launcher.pictures=2"]
    code, out, err = embedlab("-m", *gate.words, *SLOW[:3], *words, *workers, "hydra.sweep.dir=out")
    loses.join()
    assert code == 0, out + err
    assert "a worker is gone (" in out
    assert {n: r["status"] for n, r in results("out").items()} == dict.fromkeys(range(8), "done")
    made = [key for key, _ in gate.made()]
    assert len(made) == len(set(made)) == 16


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("cpus=5", "no node of the Ray cluster has 5 CPUs and 0 GPUs for a worker; its nodes have 1 CPUs and 0 GPUs"),
        ("memory=999T", "has 1 CPUs and 0 GPUs and 999T of memory for a worker; its nodes have 1 CPUs and 0 GPUs and "),
        ("memory=much", "hydra.launcher.memory is 'much'; it has to be a size such as 16G, or null."),
    ],
)
def test_no_room_is_one_line(embedlab, workers, word, line):
    code, _, err = embedlab("-m", "seeds=[0],[1]", *workers, f"hydra.launcher.{word}", "hydra.sweep.dir=out")
    assert (code, err.count("\n")) == (2, 1)
    assert line in err
    assert not results("out")
