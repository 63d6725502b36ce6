"""What is told before anything is drawn."""

import json
from pathlib import Path

import pytest
import torch

from embedlab import (
    Cell,
    Encoder,
    Guidance,
    Interpolate,
    Job,
    Noise,
    Ramp,
    Replace,
    Sampler,
    Scale,
    Shift,
    Source,
    Switch,
    explain,
    load,
)
from embedlab.errors import EmbedlabError
from embedlab.sweep.explained import explained
from embedlab.sweep.run import run_jobs
from embedlab.sweep.store import Store
from embedlab.tracker import Disk

PROMPT = "A picture of a puppy"


def test_each_row_says_what_stands_there_and_what_the_edit_made_of_it(emoji):
    told = explain(Cell(PROMPT, [Interpolate("puppy", "skunk", 0.5), Shift("picture", 2)]), emoji.towers, most=2)
    assert [(t.id, t.piece, t.role, t.place) for t in told.tokens] == [
        (49406, "<|startoftext|>", "bos", 0),
        (320, "a", "words", 1),
        (1674, "picture", "words", 2),
        (539, "of", "words", 3),
        (320, "a", "words", 4),
        (6829, "puppy", "words", 5),
        (49407, "<|endoftext|>", "eos", 6),
    ]
    puppy = told.tokens[5]
    assert puppy.near[0] == "puppy"
    assert set(puppy.near_after) == {"puppy", "skunk"}
    assert puppy.norm != puppy.norm_after
    assert [t.moved > 0 for t in told.tokens] == [False, False, True, False, False, False, False]
    assert all(t.kept == 1 and t.norm == t.norm_after for t in told.tokens[:5])
    assert told.layers[0] != told.layers[-1]
    assert len(told.layers) == 5


def test_kept_is_how_much_of_the_row_as_written_is_in_the_edited_one(sd1):
    for factor in (0.0, 0.5, 1.0, -2.0):
        told = explain(Cell(PROMPT, [Scale("puppy", factor)]), sd1.towers)
        assert told.tokens[5].kept == pytest.approx(factor, abs=1e-3)
        assert told.tokens[5].norm_after == pytest.approx(abs(factor) * told.tokens[5].norm, abs=1e-3)


def test_it_says_what_to_mind(emoji, model):
    notes = explain(Cell("a zebra", [Scale("zebra", 9)]), emoji.towers, emoji.words).notes
    assert any("row 2 ('zebra') has length" in note and "outside the vocabulary's" in note for note in notes)
    assert any(note == "words that this model never saw, and reads at random: zebra" for note in notes)
    long = explain(Cell("star " * 200, guidance=Guidance(4, "a dog")), model.towers)
    assert any("200 tokens and runs in 3 windows" in note for note in long.notes)
    assert (long.positive.tokens, long.positive.windows, long.positive.rows) == (200, 3, 231)
    assert (long.negative.tokens, long.negative.windows, long.negative.rows) == (2, 1, 77)
    cut = explain(Cell("star " * 200, encoder=Encoder("truncate")), model.towers)
    assert any("truncated: 125 words left out" in note for note in cut.notes)
    wild = explain(Cell(PROMPT, [Noise({"role": "all"}, 20, stage="hidden")]), model.towers)
    assert any("times as wide as without the edit" in note for note in wild.notes)
    broken = explain(Cell(PROMPT, [Scale("puppy", 1e38), Scale("puppy", 1e38)]), model.towers)
    assert "the conditioning holds NaN or infinite numbers" in broken.notes
    assert explain(Cell(PROMPT), emoji.towers, emoji.words).notes == ()


def test_the_report_is_read_by_people_and_the_value_by_programs(model):
    told = explain(Cell(PROMPT, [Replace("puppy", "cat")], guidance=Guidance(4, "green")), model.towers)
    text = str(told)
    for part in ("edit: puppy → cat", "6829", "prompt: 5 tokens, 1 window, 77 rows", "negative: 1 token, 1 window"):
        assert part in text
    assert json.loads(json.dumps(told.as_dict()))["tokens"][5]["piece"] == "puppy"
    assert len(told.table) == len(told.tokens) == 7 * len(model.towers)
    assert len(told.table[0]) == len(told.columns)


def test_a_very_long_prompt_is_explained_without_a_table_of_everything(emoji):
    told = explain(Cell("cat dog " * 3000), emoji.towers)
    assert len(told.tokens) == 1000
    assert told.positive.tokens == 6000


def test_nothing_but_the_text_encoder_is_read(emoji, unread):
    source = Source("emoji")
    timed = Cell(PROMPT, [Interpolate("puppy", "skunk", Ramp([0, 1]))])
    report = explained(Job(source, timed, (0,), folder=Path()))
    assert report.startswith("── call 0, step 0 ──\n")
    assert "── call 24, step 24 ──" in report
    assert "0.96 skunk" in report
    with pytest.raises(EmbedlabError, match="this cell changes over time; explain one moment of it"):
        explain(timed, emoji.towers)


def test_every_run_logs_its_tokens_and_its_schedule(tmp_path):
    cell = Cell(PROMPT, [Replace("puppy", Switch(["puppy", "cat"], 0.5))], sampler=Sampler("ddim", steps=2))
    job = Job(Source("emoji"), cell, (0,), tmp_path, tracker=Disk())
    result = run_jobs([job], Store(tmp_path / ".cells")).results[0]
    kept = json.loads((tmp_path / "result.json").read_text())
    assert [row["edit"] for row in kept["schedule"]] == ["puppy → puppy", "puppy → cat"]
    assert kept["explain"]["tokens"][5]["near_after"][0] == "cat"
    tables = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "log").glob("*.json")}
    assert {"tokens", "schedule"} <= set(tables)
    assert result.scores["rows/edited"] == 0.5, "one row in one of two calls"


def test_vectors_of_a_text_encoder_in_half_precision_are_explained(sd1, folders):
    half = load(str(folders["sd1"]), device="cpu", dtype="bfloat16")
    told = explain(Cell(PROMPT, [Interpolate("puppy", "cat", 0.5)]), half.towers)
    assert torch.isfinite(torch.tensor([t.norm_after for t in told.tokens])).all()
