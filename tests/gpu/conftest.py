"""Tiny models for the tests of a GPU, which are run without tests/conftest.py and what that needs."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"

import atexit
import importlib.util
import shutil
import sys
import tempfile
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parents[1]))
from tiny import save

from embedlab import models
from embedlab.cli import main as app

os.environ["EMBEDLAB_CACHE"] = os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp()
DEVICE = torch.device(os.environ["EMBEDLAB_GPU"])
atexit.register(shutil.rmtree, os.environ["EMBEDLAB_CACHE"], ignore_errors=True)


collect_ignore = [] if importlib.util.find_spec("embedlab.engines") else ["test_engines_gpu.py"]


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """Saved folders of the three kinds."""
    return save(tmp_path_factory.mktemp("models"))


@pytest.fixture
def embedlab(tmp_path, monkeypatch, capsys, folders):
    """Run the command in this process; the answer is exit code, output and errors."""
    monkeypatch.chdir(tmp_path)
    small = [f"model.name={folders['sd1']}", "model=custom", "sampler.steps=2", "seeds=[0,1]", "tracker=silent"]

    def run(*words):
        given = [word.split("=")[0] for word in words]
        more = [] if "resume" in given else [word for word in small if word.split("=")[0] not in given]
        if "model" in given:
            more = [word for word in more if not word.startswith("model")]
        monkeypatch.setattr(sys, "argv", ["embedlab", *more, *words])
        try:
            app.main()
            code = 0
        except SystemExit as error:
            code = error.code
        return code, *capsys.readouterr()

    return run


@pytest.fixture(autouse=True)
def exact():
    """Float32 is float32: without TF32, which convolutions take by default."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


@pytest.fixture
def load(folders):
    """A model by kind, on the device or on the CPU."""

    def one(kind, dtype="float32", device=DEVICE):
        return models.load(str(folders.get(kind, kind)), device=str(device), dtype=dtype)

    return one
