"""make test-gpu: what needs a GPU, on the first that torch sees. Words that are given go on to pytest."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent


def main() -> int:
    if not torch.cuda.is_available():
        print("no GPU here: torch sees no CUDA device, and none of tests/gpu was run")
        return 0
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}", flush=True)
    for package, what in (("scipy", "the scheduler lms is left out"), ("pyarrow", "sweeps make no table")):
        if not importlib.util.find_spec(package):
            print(f"{package} is not installed: {what}")
    known = {**os.environ, "EMBEDLAB_GPU": "cuda"}
    alone = ["--confcutdir", HERE, "-o", "addopts=-q", "-p", "no:cacheprovider"]  # torch, pytest, a folder: no plugins
    return subprocess.call([sys.executable, "-m", "pytest", HERE, *alone, "--durations=5", *sys.argv[1:]], env=known)


if __name__ == "__main__":
    sys.exit(main())
