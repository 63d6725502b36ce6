"""Collected only where the cluster runs that tests/slurm/run.py starts."""

import os

collect_ignore = [] if os.environ.get("EMBEDLAB_SLURM") else ["test_slurm.py"]
