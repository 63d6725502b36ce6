"""Secrets of the environment: what is cut out of a text, or put into a table, is blanked as well."""

import json
import os
import re
import subprocess
import sys

import pyarrow.parquet
import pytest

from embedlab import Cell, Interpolate, Scale, models
from embedlab.clean import BLANK
from embedlab.explanation import explain
from embedlab.prompt import tokenize
from embedlab.sweep.result import PictureResult
from embedlab.sweep.tables import Row, write_tables

SECRET = "abcdefgh12345"


@pytest.fixture(autouse=True)
def secret(monkeypatch):
    monkeypatch.setenv("MY_API_KEY", SECRET)


def test_tables_hold_no_secret_in_names_of_columns_nor_in_cells(tmp_path):
    picture = PictureResult(0, {f"clip_score/{SECRET}": 2.5, "closest": SECRET})
    write_tables(tmp_path, [Row(0, SECRET, f"a {SECRET}", {SECRET: SECRET}, picture, {})])
    own = {"job": 0, "label": "***", "prompt": "a ***", "***": "***", "seed": 0}
    cells = {**own, "clip_score/***": 2.5, "closest": "***", "status": "done"}
    table = pyarrow.parquet.read_table(tmp_path / "results.parquet")
    assert (table.to_pylist(), table.schema.metadata[b"embedlab.format"]) == ([cells], b"1")
    heads, line = (tmp_path / "results.csv").read_text().splitlines()
    assert (heads.split(","), line.split(",")) == ([*cells], [str(cell) for cell in cells.values()])


def test_words_of_a_secret_are_blanked_and_still_found():
    tokens = tokenize(f"a puppy x{SECRET}", models.tokenizer())
    assert [word.text for word in tokens.words] == ["a", "puppy", *[BLANK] * 6]
    assert tokens.rows(f"x{SECRET}") == [tuple(row for word in tokens.words[2:] for row in word.rows)]


def test_an_explanation_shows_no_piece_of_a_secret():
    towers = models.load("emoji").towers
    written = explain(Cell(f"a puppy {SECRET}"), towers, known=("a", "puppy"))
    assert {(t.piece, t.id, t.near, t.near_after) for t in written.tokens[3:-1]} == {(BLANK, -1, (BLANK,), (BLANK,))}
    assert {(t.kept, t.norm, t.norm_after) for t in written.tokens[3:-1]} == {(None, None, None)}
    assert re.search(r"-1 +\*{3} +\*{3} +\*{3} +\*{3}$", str(written), re.M)
    assert not [note for note in written.notes if "never saw" in note]
    long = explain(Cell(f"a {SECRET}", [Scale(SECRET, 9)]), towers)
    assert not [note for note in long.notes if "has length" in note]
    edited = explain(Cell("a puppy", [Interpolate("puppy", SECRET, 1, lengths="resample")]), towers)
    assert (edited.tokens[2].piece, edited.tokens[2].near_after) == ("puppy", (BLANK,))
    weak = explain(Cell("a puppy", [Interpolate("puppy", SECRET, 0.05, lengths="resample")]), towers)
    for rows in (edited.tokens, weak.tokens):
        assert (rows[2].kept, rows[2].norm_after, rows[1].norm_after) == (None, None, rows[1].norm)
        assert rows[2].norm is not None, "that of the word as written"
    for told in (written, edited):
        assert "abcd" not in json.dumps([told.table, told.notes])


@pytest.mark.parametrize("closed", [1, 2])
def test_a_stream_that_is_closed_gets_nothing_and_nothing_breaks(closed):
    code = (
        f"import os; os.close({closed}); os.execv({sys.executable!r}, [{sys.executable!r}, '-m', 'embedlab', '--help'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ))
    assert (done.returncode, done.stderr) == (0, "")
