"""Numbers beside those of other tools: what was reached is kept for the table of docs/parity.md.

A test that has the mark `parity(tool, what, setting, source)` is a row of it: `source` is `live` where the tool itself
ran beside ours, `formula` where its formula was read again in the test, `golden` where its own expected values stand
there; `differs` says what is otherwise on purpose. `EMBEDLAB_PARITY=docs/parity.md pytest tests` writes the page.
"""

import ast
import os
from pathlib import Path

import torch

ROOT = Path(__file__).parent
PAGE = ROOT.parent / "docs" / "parity.md"
HEAD = """# Numbers beside other tools

Every row is a test that compares embedlab's numbers with another tool's, on random CLIPs in the shapes of SD 1, 2 and
XL (float32; guiders with a UNet in float64).

- Source: *live*, the tool itself ran in the test; *formula*, its formula was written again in the test, plainly;
  *golden*, the tool's own expected values.
- Reached: the largest difference of any number. *Exact* are trees, texts and ids.

What each setting does is in [prompts.md](prompts.md), and what the tools can do in [compare.md](compare.md).
`EMBEDLAB_PARITY=docs/parity.md python -m pytest tests` writes this.

| tool | behaviour | setting | source | reached | where ours differs on purpose |
|---|---|---|---|---|---|
"""
reached: dict[str, float] = {}  # by the test that is running


def close(made, expected, atol=1e-5, rtol=0.0):
    """Entries that are equal to a tolerance; how near they came is kept."""
    torch.testing.assert_close(made, expected, atol=atol, rtol=rtol)
    now = os.environ.get("PYTEST_CURRENT_TEST", "").split(" ")[0].split("[")[0]
    difference = (made.detach().double() - expected.detach().double()).abs()
    reached[now] = max(reached.get(now, 0.0), float(difference.max()) if difference.numel() else 0.0)


def row(arguments, more, worst):
    tool, what, setting, source = arguments
    figure = "exact" if worst is None else f"{worst:.0e}" if worst else "0"
    return f"| {tool} | {what} | {setting} | {source} | {figure} | {more.get('differs', '')} |".replace("{|}", "\\|")


def starred(argument):
    return isinstance(argument, ast.Starred)


def marks():
    """Every mark in the tests: the test, and the arguments."""
    found = []
    for path in sorted(ROOT.glob("test_*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            for mark in getattr(node, "decorator_list", []):
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.parity":
                    more = {word.arg: ast.literal_eval(word.value) for word in mark.keywords}
                    test = f"tests/{path.name}::{node.name}"
                    args = [part for one in mark.args for part in (one.value.elts if starred(one) else [one])]
                    found.append((test, [ast.literal_eval(one) for one in args], more))
    return found


def written():
    """The page's rows, from the tests that ran."""
    rows = sorted((row(*mark, reached.get(test)) for test, *mark in marks()), key=str.lower)
    return HEAD + "\n".join(rows) + "\n"
