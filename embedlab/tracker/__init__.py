"""Where figures and pictures are logged. A tracker opens runs; a run takes scores, pictures and a table.

Files of the experiment itself (PNG, result.json) are written before and without any tracker.
"""

from embedlab.tracker.disk import Disk
from embedlab.tracker.mlflow import MLflow
from embedlab.tracker.opening import check_tracker, discard_log, make_ready, opened
from embedlab.tracker.protocol import About, Run, Tracker, look_at
from embedlab.tracker.several import Several
from embedlab.tracker.silent import Silent
from embedlab.tracker.tensorboard import TensorBoard
from embedlab.tracker.trackio import Trackio
from embedlab.tracker.wandb import Wandb

__all__ = [
    "About",
    "Disk",
    "MLflow",
    "Run",
    "Several",
    "Silent",
    "TensorBoard",
    "Tracker",
    "Trackio",
    "Wandb",
    "check_tracker",
    "discard_log",
    "look_at",
    "make_ready",
    "opened",
]
