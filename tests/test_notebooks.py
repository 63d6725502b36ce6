"""The notebooks that ship are run as they are written, each in a kernel of its own, with few steps."""

import re
from pathlib import Path

import jupytext
import nbclient
import pytest
from nbformat import NotebookNode

NOTEBOOKS = sorted((Path(__file__).parent.parent / "docs" / "notebooks").glob("*.md"))


def shortened(notebook: NotebookNode) -> NotebookNode:
    """With few steps."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.source = re.sub(r"steps( ?= ?)\d+", r"steps\g<1>6", cell.source)
    return notebook


def outputs_of(notebook: NotebookNode) -> list[NotebookNode]:
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


@pytest.mark.turns
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_opens_with_what_is_seen_and_runs(path, tmp_path):
    notebook = shortened(jupytext.read(path))
    first = notebook.cells[0].source
    assert first.startswith("# ")
    assert "You will see" in first
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = outputs_of(notebook)
    said = [output for output in outputs if output.output_type == "stream" and output.name == "stderr"]
    assert not said, said  # nothing of other libraries
    shown = [output.data for output in outputs if output.output_type in ("execute_result", "display_data")]
    assert sum(bool(data.get("text/html")) for data in shown) > 2
    assert any(data.get("text/html") == "" for data in shown), "a bar was shown, and left nothing behind"
    assert all(len(data.get("text/plain", "")) < 4000 for data in shown)
