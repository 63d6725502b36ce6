"""Tiny real models: classes and layout of Stable Diffusion 1, 2 and XL with random weights, saved as folders."""

import logging
import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["WANDB_SILENT"] = "true"

import atexit
import gc
import shutil
import signal
import sys
import tempfile
from collections import Counter
from pathlib import Path

import absl.logging
import hypothesis
import pytest
import torch
from diffusers import DiffusionPipeline

sys.path.append(str(Path(__file__).with_name("hostile")))
import parity
from limit import pytest_sessionstart  # noqa: F401  a hook
from tiny import save
from trials import Forks
from turns import TURN, TURNS, mine

from embedlab import models
from embedlab.cli import main as app
from embedlab.models import loading

if "PYTEST_XDIST_WORKER" not in os.environ:  # one for all workers, and not the user's: hashes, graphs of engines
    os.environ["EMBEDLAB_CACHE"] = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, os.environ["EMBEDLAB_CACHE"], ignore_errors=True)
pytest.register_assert_rewrite("cluster_laws")
collect_ignore = [] if os.environ.get("EMBEDLAB_SLURM") else ["slurm"]  # needs the cluster of tests/slurm/run.py
collect_ignore += [] if os.environ.get("EMBEDLAB_GPU") else ["gpu"]  # needs a GPU: tests/gpu/run.py
torch.set_grad_enabled(True)
# thousands of lines for each graph of torch.export, which pytest would format: two fifths of the time of an export
logging.getLogger("torch.__trace").propagate = False
# TensorBoard's logging closes the stream that it was imported under, pytest's own, when Hydra sets up another one
absl.logging.get_absl_handler().python_handler.stream = sys.__stderr__
# a busy machine is slow, not wrong; the same examples each time, so that red means a change; test-hostile has new ones
hypothesis.settings.register_profile("embedlab", deadline=None, derandomize=TURN != "all")
hypothesis.settings.load_profile("embedlab")

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # a shell does that to what it starts in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)


LONGEST_FILES = (  # in the order in which they are begun; tests of Ray wait most
    *("ray", "app", "sweep", "workers", "readme", "crash", "hostile", "engines", "anatomy", "model_files", "sampler"),
    *("pretrain", "play", "notebooks", "gallery_screens", "gallery_view", "gallery_several", "docs", "dashboards"),
    *("schedulers", "learning", "profile", "schedule"),
)


def pytest_collection_finish() -> None:
    """What was imported stays for good: no collection looks through it again, which took a fifth of all time."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What takes longest is begun first, so that no worker is left with it at the end; some of it has its turn.

    Tests that share what takes long say so, `turns("its name")`, and have one turn. Whoever chooses nothing but tests
    whose turn it is not gets them all the same.
    """
    place = {f"test_{name}": n for n, name in enumerate(LONGEST_FILES)}
    items.sort(key=lambda item: place.get(item.path.stem, len(place)))
    count, shared, later = Counter(), {}, set()
    for item in items:
        if marker := item.get_closest_marker("turns"):
            count[item.path] += 1
            turn = shared.setdefault((item.path, marker.args), count[item.path]) if marker.args else count[item.path]
            if not mine(turn):
                later.add(item)
    if later and len(later) < len(items):
        config.hook.pytest_deselected(items=[item for item in items if item in later])
        items[:] = [item for item in items if item not in later]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "turns(shared): takes long; a seventh of those in its file is run, by the day of the week"
    )
    config.addinivalue_line("markers", "parity(tool, what, setting, source, differs): a row of docs/parity.md")


def pytest_sessionfinish() -> None:
    """The table of numbers beside other tools' (tests/parity.py), where it is asked for."""
    if page := os.environ.get("EMBEDLAB_PARITY"):
        Path(page).write_text(parity.written(), encoding="utf-8")


def pytest_report_header() -> str:
    """Which of the longest tests are run."""
    return f"what takes long: turn {TURN} of 0 to {TURNS - 1}, by the day; EMBEDLAB_TURN=all runs all"


@pytest.fixture(autouse=True)
def no_log_left():
    """Hydra lets the root logger write into a run's folder, which may be gone when a later test warns of something."""
    yield
    for handler in [h for h in logging.root.handlers if type(h) in (logging.StreamHandler, logging.FileHandler)]:
        logging.root.removeHandler(handler)
        handler.close()


@pytest.fixture(scope="session")
def forks(folders):
    """The process that runs hostile trials and other programs, with all imported and the small model in memory."""
    made = Forks(folders["sd1"])
    yield made
    made.close()


@pytest.fixture(scope="session")
def folders(tmp_path_factory) -> dict[str, Path]:
    """Saved folders of the three kinds."""
    return save(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session", params=["sd1", "sd2", "sdxl"])
def kind(request) -> str:
    return request.param


@pytest.fixture(scope="session")
def model(folders, kind) -> models.Model:
    """One of the three kinds, loaded."""
    return models.load(str(folders[kind]), device="cpu")


@pytest.fixture(scope="session")
def sd1(folders) -> models.Model:
    return models.load(str(folders["sd1"]), device="cpu")


@pytest.fixture(scope="session")
def emoji() -> models.Model:
    """The model that ships with embedlab."""
    return models.load("emoji", device="cpu")


@pytest.fixture
def pipeline(folders, kind):
    """The library's own pipeline over the same folder."""
    return open_pipeline(folders[kind])


def open_pipeline(folder: Path):
    """diffusers' pipeline of a folder, weights laid out as ours: sums in another order differ in the fifth digit."""
    extra = {} if folder.name == "sdxl" else {"safety_checker": None}
    pipe = DiffusionPipeline.from_pretrained(folder, **extra)
    for part in (pipe.unet, pipe.vae):
        part.to(memory_format=torch.channels_last)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture
def pipeline_sd1(folders):
    """diffusers' pipeline of the small SD 1."""
    return open_pipeline(folders["sd1"])


@pytest.fixture
def unreadable(folders, tmp_path) -> Path:
    """A small SD 1 whose small files are right and whose UNet lacks a tensor's last bytes."""
    folder = shutil.copytree(folders["sd1"], tmp_path / "unreadable")
    (weights,) = (folder / "unet").glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:-100])
    return folder


@pytest.fixture
def unread():
    """Nobody reads the weights of a whole model, nor asks for those that were read, while the test runs."""

    def asked():
        known = loading.read_model.cache_info()
        return known.hits, known.misses

    before = asked()
    yield
    assert asked() == before, "weights were read"


@pytest.fixture
def embedlab(tmp_path, monkeypatch, capsys, folders):
    """Run the command in this process, on the smallest model; the answer is exit code, output and errors."""
    monkeypatch.chdir(tmp_path)
    common = [f"model.name={folders['sd1']}", "model=custom", "model.device=cpu", "sampler.steps=2"]

    def run(*words, plain=False):
        given = [key.split("=")[0] for key in words]
        more = [] if plain else [w for w in (*common, "seeds=[0,1]", "tracker=silent") if w.split("=")[0] not in given]
        monkeypatch.setattr(sys, "argv", ["embedlab", *more, *words])
        try:
            app.main()
            code = 0
        except SystemExit as error:
            code = error.code
        return code, *capsys.readouterr()

    return run
