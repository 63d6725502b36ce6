"""A user's editor and `mypy --strict` understand embedlab; what they check also runs."""

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

from consumer import study

import embedlab as lab

ROOT = Path(__file__).parent.parent
SETTINGS = re.compile(
    r"\[tool\.mypy\]\n.*?(?=\n\[tool\.(?!mypy))", re.S
)  # ours, so that what was read of torch serves again
WRONG = {  # a line of code each, and what mypy says of it
    "lab.Replacement": 'Module has no attribute "Replacement"',
    "lab.Cell(operators=3, prompt='A cat')": 'Argument "operators" to "Cell" has incompatible type "int"; expected',
    "lab.Cell(5)": 'Argument 1 to "Cell" has incompatible type "int"; expected "str | ParsedPrompt | Sched',
    "lab.Interpolate('puppy', 'cat', weight='x')": 'Argument "weight" to "Interpolate" has incompatible type "str"',
    "lab.Interpolate('puppy', 'cat', lab.Switch([0, 'b'], at=0.5))": 'List item 1 has incompatible type "str"',
    "lab.Interpolate('puppy', 'cat', [0.5, 'b'])": 'List item 1 has incompatible type "str"',
    "lab.Interpolate('puppy', 'cat', path='round')": 'Argument "path" to "Interpolate" has incompatible type "Literal',
    "lab.Scale(0.5, by=2)": 'Argument 1 to "Scale" has incompatible type "float"',
    "lab.Scale('puppy', 2, stage=lab.Ramp([0, 1]))": 'Argument "stage" to "Scale" has incompatible type "Ramp"',
    "lab.Replace('puppy', by=0.5)": 'Argument "by" to "Replace" has incompatible type "float"',
    "lab.Noise('puppy', 0.1, seed=1.5)": 'Argument "seed" to "Noise" has incompatible type "float"',
    "lab.Guidance(scale='high')": 'Argument "scale" to "Guidance" has incompatible type "str"',
    "lab.Guidance(negative=lab.Ramp([0, 1]))": 'Argument "negative" to "Guidance" has incompatible type "Ramp"',
    "lab.Encoder(skip='two')": 'Argument "skip" to "Encoder" has incompatible type "str"',
    "lab.Sampler(steps=lab.Ramp([1, 2]))": 'Argument "steps" to "Sampler" has incompatible type "Ramp"; expected "int"',
}


def test_a_users_package_and_every_written_block_pass_mypy_strict(tmp_path):
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        for n, block in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.S)):
            if not block.startswith(("# embedlab/", "# tests/")):  # files of ours, which test_extending tries
                (theirs / f"{page.stem.lower()}_{n}.py").write_text(block)
    for path in (ROOT / "tests" / "consumer").glob("*.py"):
        (theirs / path.name).write_text(path.read_text())
    (theirs / "wrong.py").write_text("\n".join(["import embedlab as lab", *WRONG]))
    (own,) = SETTINGS.findall((ROOT / "pyproject.toml").read_text())
    (tmp_path / "pyproject.toml").write_text(own.replace('packages = ["embedlab"]\n', ""))
    if (ROOT / ".mypy_cache").is_dir():  # `make lint` comes before
        shutil.copytree(ROOT / ".mypy_cache", tmp_path / "cache")
    mypy = [sys.executable, "-m", "mypy", "--cache-dir", str(tmp_path / "cache"), "theirs"]
    done = subprocess.run(mypy, cwd=tmp_path, capture_output=True, text=True, check=False)
    *lines, _ = done.stdout.splitlines()
    refused = dict(line.removeprefix("theirs/wrong.py:").split(": error: ") for line in lines if "wrong.py" in line)
    assert list(refused) == [str(n + 2) for n in range(len(WRONG))]
    for said, (code, fault) in zip(refused.values(), WRONG.items(), strict=True):
        assert said.startswith(fault), code
    assert [line for line in lines if not line.startswith("theirs/wrong.py:")] == [], done.stderr


def test_that_package_uses_most_public_names_and_runs(sd1, folders, tmp_path):
    tree = ast.parse(Path(study.__file__).read_text())
    used = {
        node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "lab"
    }
    assert len(used) >= 0.9 * len(lab.__all__), sorted(set(lab.__all__) - used)
    assert len(study.OPERATORS) > 20
    assert all(str(setting) for setting in (*study.VARYING, *study.READ, *study.GUIDED))
    assert study.looked_at(sd1, "A picture of a cat", seed=0).shape == (1, 1)
    assert study.pictures(sd1, seeds=[0, 1])
    conditional = study.tables(sd1.towers, tmp_path)
    assert [concept.name for concept in study.a_word_of_ones_own(sd1, tmp_path)] == ["<mine>"]
    unconditional = lab.encode([lab.embed_all("", sd1.towers)], sd1.towers)[0]
    assert study.by_hand(sd1, conditional, unconditional).shape == (2, 4, 8, 8)
    assert study.stepped_through(sd1, seed=0).shape[:2] == (1, 3)
    tiny = lab.Source(str(folders["sd1"]), device="cpu")
    assert study.counted(tiny) > 10**6
    puppy = lab.Cell("a puppy", [lab.Interpolate("puppy", "cat", 0.5)], sampler=lab.Sampler(steps=1))
    assert len(study.read_back(tiny, puppy, tmp_path / "grid")) == 2
    assert study.sweep(tiny, tmp_path / "sweep") == 2


def test_the_names_of_axes_are_the_same_in_every_file():
    """Images are `image`, rows of a UNet call `row`; latents have sides h and w, pixels height and width."""
    found = {
        (path.name, axes)
        for path in Path(lab.__file__).parent.rglob("*.py")
        for axes in re.findall(r'(?:Float|Bool|Int|UInt8)\[Tensor, "([^"]*)"', path.read_text())
    }
    assert len(found) > 60
    for place, axes in found:
        words = axes.split()
        assert not {"place", "n", "seed", "picture"} & set(words), (place, axes)
        assert ("h" in words) == ("w" in words) == (words[-2:] == ["h", "w"]), (place, axes)
        assert "h" not in words or words[-3:-2] in ([], ["1"], ["c"]), (place, axes)  # a mask has no channels, or one
        assert ("height" in words) == ("3" in words), (place, axes)
        assert len(words) < 4 or words[0] in ("image", "row", "prompt", "1"), (place, axes)
