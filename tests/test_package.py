"""What is handed to others: the wheel, its version, and what changed."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import embedlab

ROOT = Path(__file__).parent.parent


def test_the_wheel_has_the_version_the_types_and_the_configs(tmp_path):
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as held:
        files = set(held.namelist())
        (metadata,) = (name for name in files if name.endswith(".dist-info/METADATA"))
        assert f"\nVersion: {embedlab.__version__}\n" in held.read(metadata).decode()
    assert {"embedlab/py.typed", "embedlab/conf/config.yaml", "hydra_plugins/embedlab/__init__.py"} <= files
    assert not [name for name in files if name.startswith(("tests/", "docs/"))]


def test_the_changelog_begins_with_this_version():
    versions = re.findall(r"^## (\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert versions[0] == embedlab.__version__
    assert versions[-1] == "0.1.0"
