"""A run of tests ends, also where a worker is lost or hangs."""

import os
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

HERE = Path(__file__).parent
OPTIONS = shlex.split(
    tomllib.loads((HERE.parent / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]["addopts"]
)


@pytest.fixture
def ran(tmp_path):
    """What comes of a run of tests of one file beside another that is done at once, with our options."""

    def run(code, **environment):
        (tmp_path / "conftest.py").write_text((HERE / "limit.py").read_text())
        (tmp_path / "test_done.py").write_text("def test():\n    pass\n")
        (tmp_path / "test_long.py").write_text(f"import os, time\n\n\n{code}\n")
        options = [
            *OPTIONS,
            "-p",
            "xdist.plugin",
            "-p",
            "pytest_timeout",
            "-n",
            "2",
            "--dist",
            "loadfile",
            "-p",
            "no:cacheprovider",
            "--rootdir",
            ".",
        ]
        return subprocess.run(
            [sys.executable, "-m", "pytest", "-c", os.devnull, *options],
            cwd=tmp_path,
            env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "EMBEDLAB_LIMIT": "", **environment},
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


def test_a_run_that_lost_a_worker_ends_and_names_the_test(ran):
    done = ran("def test_a():\n    time.sleep(3)\n\n\ndef test_b():\n    os._exit(1)\n\n\ndef test_c():\n    pass\n")
    assert done.returncode == 1, done.stdout
    assert "crashed while running 'test_long.py::test_b'" in done.stdout
    assert "1 failed, 2 passed" in done.stdout


def test_a_run_that_hangs_is_given_up_with_a_line(ran):
    done = ran("def test_a():\n    time.sleep(200)\n", EMBEDLAB_LIMIT="10")
    assert done.returncode == 1, done.stdout
    assert "the tests are not done after 10 s: given up." in done.stdout
