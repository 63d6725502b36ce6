"""A user's own operator, in his own package: installed with pip, named by `_target_`, swept over."""

import csv
import json
import subprocess
import sys
import textwrap

import pytest

OPERATOR = '''
    from dataclasses import dataclass

    from embedlab import Embeddings, Lookup


    @dataclass(frozen=True)
    class Fade:
        """Take `share` of a word's length away."""

        word: str
        share: float

        def __call__(self, prompt: Embeddings, lookup: Lookup) -> Embeddings:
            spans = prompt.spans(self.word)
            return prompt.put("token", spans, (1 - self.share) * prompt.take("token", spans))


    @dataclass(frozen=True)
    class Mute:
        """After the encoder: a stage says so."""

        stage = "hidden"

        def __call__(self, told, texts):
            spans = told.spans({"role": "pad"})
            return told.put("hidden", spans, texts("").take("hidden", texts("").spans({"role": "eos"})))
'''
PROJECT = """
    [build-system]
    requires = ["hatchling"]
    build-backend = "hatchling.build"

    [project]
    name = "their-operators"
    version = "1.0"
"""


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """The package, installed where Python finds it."""
    root = tmp_path_factory.mktemp("theirs")
    (root / "source" / "their_operators").mkdir(parents=True)
    (root / "source" / "their_operators" / "__init__.py").write_text(textwrap.dedent(OPERATOR))
    (root / "source" / "pyproject.toml").write_text(textwrap.dedent(PROJECT))
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run(
        [*pip, "--target", str(root / "site"), str(root / "source")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return root / "site"


def test_an_installed_operator_is_swept_over(forks, theirs, tmp_path):
    words = [
        "+operators.fade._target_=their_operators.Fade",
        "+operators.fade.word=puppy",
        "+operators.fade.share=0,0.5,1",
        "+operators.mute._target_=their_operators.Mute",
        "seeds=[0]",
        "sampler.steps=2",
        "tracker=silent",
        f"hydra.sweep.dir={tmp_path}",
    ]
    done = forks.embedlab("-m", *words, cwd=tmp_path, env={"PYTHONPATH": str(theirs)})
    assert done.returncode == 0, done.stderr
    with (tmp_path / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3
    results = [json.loads((tmp_path / str(n) / "result.json").read_text()) for n in range(3)]
    edited = [result["scores"]["rows/edited"] for result in results]
    assert edited == [0, 1, 1]
    assert all(result["scores"]["conditioning/distance"] > 0 for result in results), (
        "the second works after the encoder"
    )
    assert len({(tmp_path / str(n) / "seed-0.png").read_bytes() for n in range(3)}) == 3


def test_what_their_operator_lacks_is_one_line(forks, theirs, tmp_path):
    words = ["+operators.fade._target_=their_operators.Fade", "+operators.fade.word=kitten", "+operators.fade.share=1"]
    done = forks.embedlab(*words, cwd=tmp_path, env={"PYTHONPATH": str(theirs)})
    assert done.returncode == 2
    assert done.stderr.strip() == "embedlab: 'kitten' is not in the prompt; its words are A, picture, of, a, puppy."


def test_an_operator_that_exits_fails_its_own_jobs_alone(embedlab, tmp_path, monkeypatch):
    (tmp_path / "leaving.py").write_text(textwrap.dedent(LEAVING))
    monkeypatch.syspath_prepend(tmp_path)
    words = ["-m", "+operators.x={_target_: leaving.Stay},{_target_: leaving.Leave}", "guidance.scale=2,3"]
    code, out, err = embedlab(*words, "hydra.sweep.dir=sweep")
    assert code == 1, err
    results = [json.loads((tmp_path / "sweep" / str(n) / "result.json").read_text()) for n in range(4)]
    assert [result["status"] for result in results] == ["done", "done", "failed", "failed"]
    assert [result["label"] for result in results] == ["Stay", "Stay", "Leave", "Leave"]
    assert results[2]["error"] == "RuntimeError: 'Leave' raised SystemExit(7)"
    assert "RuntimeError: 'Leave' raised SystemExit(7)" in err + out
    code, _, err = embedlab("-m", "+operators.x={_target_: leaving.Stay},{_target_: leaving.Never}")
    assert code == 2
    assert "operators raised SystemExit(7) when it was made; nothing of a config may end the process." in err
    code, _, err = embedlab("explain", "+operators.x._target_=leaving.Leave")
    assert (code, err) == (1, "embedlab: RuntimeError: 'Leave' raised SystemExit(7)\n")


LEAVING = """
    class Stay:
        def __call__(self, prompt, lookup):
            return prompt

    class Leave:
        def __call__(self, prompt, lookup):
            raise SystemExit(7)

    class Never:
        def __init__(self):
            raise SystemExit(7)
"""
