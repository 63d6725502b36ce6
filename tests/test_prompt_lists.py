"""Lists of prompts: files, named sets, templates of dynamicprompts, and keys of one's own in a prompt."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
from dynamicprompts.generators import CombinatorialPromptGenerator
from dynamicprompts.wildcards import WildcardManager
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from PIL import Image

from embedlab.cli import settings
from embedlab.cli.combinations import Combinations
from embedlab.cli.prompt_list import asked, axis, rows_of, typed, with_rows
from embedlab.errors import ConfigError
from embedlab.language import parse, pieces
from embedlab.sweep.config import words_in
from embedlab.sweep.labels import label, unquoted
from embedlab.sweep.overrides import quoted
from embedlab.sweep.result import Result
from embedlab.view.gallery.content import content, read
from embedlab.view.layout import layout, results_of

PARSER = OverridesParser.create()
LINES = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\r\n"), min_size=1).filter(
    lambda line: line.strip() and line != "???"
)


def value_of(word: str):
    """What a setting becomes: through Hydra's parser and OmegaConf."""
    override = PARSER.parse_override(word)
    return OmegaConf.to_container(OmegaConf.create({"it": override.value()}), resolve=True)["it"]


def settings_of(row) -> dict:
    return {line.partition("=")[0]: value_of(line) for line in row}


def rows(path: Path | str, *words: str) -> list[dict]:
    return [settings_of(row) for row in rows_of(asked([f"prompts=@{path}", *words]))]


def results(folder: str = "out") -> dict[int, dict]:
    return {int(p.parent.name): json.loads(p.read_text()) for p in Path(folder).glob("*/result.json")}


def pixels(path: str) -> bytes:
    return Image.open(path).tobytes()


# ── files ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@given(st.lists(LINES, min_size=1, max_size=4, unique=True))
@example(["a red, fox", "[a:b:0.5] (c:1.2) {d|e:0.3}", 'it\'s "so"', "a ${b} \\${c} \\\\${d", "k=v", "\\", "'\\'"])
@example(["null", "5", " a ", "é😀\u2028\u0085x", "\x00\x0b\x0c", "${", "$", "\\'${a}\\"])
def test_any_line_of_a_file_arrives_as_itself(tmp_path_factory, lines):
    path = tmp_path_factory.mktemp("lists") / "a.txt"
    path.write_bytes("\n".join(lines).encode())
    if lines[0].startswith("\ufeff"):
        lines = [lines[0][1:], *lines[1:]]  # of which the file begins
    if all(line.strip() for line in lines):
        assert rows(path) == [{"prompt": line} for line in lines]


@given(st.dictionaries(st.sampled_from(["prompt", "guidance.negative", "name"]), LINES, min_size=1))
def test_any_text_in_a_table_and_in_yaml_arrives_as_itself(tmp_path_factory, row):
    folder = tmp_path_factory.mktemp("lists")
    (folder / "a.json").write_text(json.dumps([row]), encoding="utf-8")
    cells = ['"' + text.replace('"', '""') + '"' for text in row.values()]
    (folder / "a.csv").write_bytes(f"{','.join(row)}\r\n{','.join(cells)}\r\n".encode())
    assert rows(folder / "a.json") == [{("+" if key == "name" else "") + key: text for key, text in row.items()}]
    assert rows(folder / "a.csv") == rows(folder / "a.json")


@given(st.text(st.characters(blacklist_categories=["Cs"])))
@example("it's \\'${a}\\\\")
def test_a_quoted_text_means_itself_and_is_unquoted_for_labels(text):
    if text != "???":
        assert value_of(f"prompt={quoted(text)}") == text
    if "\\" not in text:
        assert unquoted(quoted(text)) == text


@given(st.lists(st.text(st.characters(blacklist_categories=["Cs"]), min_size=1), min_size=1, max_size=3, unique=True))
def test_the_words_that_asked_are_kept_by_the_axis(values):
    words = sorted(f"prompts.most={value}" for value in values)
    assert typed(["-m", axis(words, 2), "seeds=[0]"]) == ["-m", *words, "seeds=[0]"]


def test_lines_end_as_any_tool_ends_them_and_blank_ones_are_none(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfa cat\r\n\r\n  \na dog\rowl #1\n")
    assert [row["prompt"] for row in rows(tmp_path / "a.txt")] == ["a cat", "a dog", "owl #1"]


def test_cells_are_read_as_on_the_command_line_and_texts_as_they_stand(tmp_path):
    (tmp_path / "a.csv").write_text(
        "prompt,seeds,guidance.scale,guidance.negative,sampler,operators.scale.rows,operators.scale.by,animal\n"
        '"a cat, a dog","0,1",3,5,lms,{word: cat},-0.5,007\n'
        "5,[2],,,,\"red, blue\",true,'x'\n"
    )
    got = rows(tmp_path / "a.csv", "guidance.uncond=${animal}")
    assert got == [
        {
            "prompt": "a cat, a dog",
            "seeds": [0, 1],
            "guidance.scale": 3,
            "guidance.negative": "5",
            "sampler": "lms",
            "operators.scale.rows": {"word": "cat"},
            "operators.scale.by": -0.5,
            "+animal": "007",
        },
        {
            "prompt": "5",
            "seeds": [2],
            "operators.scale.rows": "red, blue",
            "operators.scale.by": True,
            "+animal": "'x'",
        },
    ]


def test_semicolons_and_tabs_part_cells_too(tmp_path):
    (tmp_path / "a.csv").write_text("prompt;guidance.scale\na cat, red;2\n")
    (tmp_path / "a.tsv").write_text("prompt\tguidance.scale\na cat, red\t2\n")
    assert rows(tmp_path / "a.csv") == rows(tmp_path / "a.tsv") == [{"prompt": "a cat, red", "guidance.scale": 2}]


def test_yaml_holds_texts_and_settings_nested_or_not(tmp_path):
    (tmp_path / "a.yaml").write_text(
        "- a cat, [red]\n"
        "- {prompt: a dog, guidance: {scale: 2}, seeds: [3], operators: {scale: {rows: {word: dog}, by: 2}}}\n"
        "- {prompt: {_target_: embedlab.schedule.Switch, values: [a cat, a dog], at: [8]}, size: null}\n"
    )
    first, second, third = rows(tmp_path / "a.yaml")
    assert first == {"prompt": "a cat, [red]"}
    assert second == {
        "prompt": "a dog",
        "guidance.scale": 2,
        "seeds": [3],
        "operators.scale.rows": {"word": "dog"},
        "operators.scale.by": 2,
    }
    assert third["prompt"]["values"] == ["a cat", "a dog"]
    assert third["size"] is None


WORDS_IN_FILES = rb"prompt , \" - a seeds [0] { } : name [ ] &a *a null 1e999 !!x".split()
PIECES = st.sampled_from([*WORDS_IN_FILES, b"\n", b"\r", b" ", b"\t", b"\x00", b"\xff", b": ", b"- "])
LAUGHS = "- &a [1,2,3,4,5,6,7,8,9]\n"
LAUGHS += "".join(f"- &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in pairwise("abcdefghi"))


@given(st.sampled_from(["txt", "csv", "tsv", "yaml", "json"]), st.binary(max_size=60) | st.lists(PIECES).map(b"".join))
@example("csv", b"\x00\n\x00")
@example("yaml", b"- {? a}")
@example("yaml", b"- {? [a] : b}")
@example("yaml", b"- !!python/name:os.system")
@example("yaml", b"- {prompt: !!binary aGk=}")
@example("yaml", b"- {seeds: !!set {a}}")
@example("json", b"[NaN]")
@example("csv", "operators.x.größe\na".encode())
@example("yaml", "- {size: {größe: 1}}".encode())
def test_any_bytes_are_rows_or_one_line(tmp_path_factory, kind, content):
    path = tmp_path_factory.mktemp("lists") / f"a.{kind}"
    path.write_bytes(content)
    try:
        assert rows(path)
    except ConfigError as error:
        assert len(str(error).splitlines()) == 1  # noqa: PT017


WRONG = {
    "no.txt": (None, "'no.txt' cannot be read: No such file or directory."),
    "e.txt": (b"", "'e.txt' holds no prompt: it is empty."),
    "e.yaml": (b"# nothing\n", "'e.yaml' holds no prompt: it is empty."),
    "heads.csv": (b"prompt,seeds\n", "'heads.csv' holds no prompt: it is empty."),
    "latin.txt": ("a caf\u00e9".encode("latin1"), "'latin.txt' is not UTF-8: byte 5 is 0xe9; save it as UTF-8."),
    "twice.txt": (b"a\nb\na\n", "line 3 of 'twice.txt' says what line 1 of 'twice.txt' says; leave one of them out."),
    "to_come.txt": (b"???", "line 1 of 'to_come.txt' is '???', which stands for a value that is still to be given; "),
    "typo.csv": (b"promt\na\n", "line 2 of 'typo.csv' sets 'promt', which is no setting (is prompt meant?); "),
    "hidden.csv": (b"model._target_\nos.system\n", "line 2 of 'hidden.csv' sets 'model._target_', which is no setting"),
    "hydra.csv": (b"hydra.sweep.dir\n/tmp\n", "line 2 of 'hydra.csv' sets 'hydra.sweep.dir', which is no setting"),
    "plus.csv": (b"+prompt\na\n", "line 2 of 'plus.csv' sets '+prompt', which is no setting"),
    "heads2.csv": (b"prompt,prompt\na,b\n", "line 1 of 'heads2.csv' names its columns, and 'prompt' is there twice"),
    "heads3.csv": (b"prompt,\na,b\n", "line 1 of 'heads3.csv' names its columns, and column 2 has no name"),
    "cells.csv": (
        b"prompt\na, b\n",
        "line 2 of 'cells.csv' has 2 cells for 1 columns; a cell that holds a comma is ",
    ),
    "quote.csv": (b'prompt\n"a', "line 2 of 'quote.csv' cannot be read: unexpected end of data."),
    "yes.yaml": (b"- yes\n", "item 1 of 'yes.yaml' has the prompt True, which is no text; quote it: \"True\"."),
    "broken.yaml": (b"a: [\n", "line 2, column 1 of 'broken.yaml' is no YAML: "),
    "map.yaml": (
        b"prompt: a\n",
        "'map.yaml' is {prompt: 'a'}; it has to be a list: of prompts, or of settings by their keys.",
    ),
    "self.yaml": (b"- &a {prompt: a, guidance: *a}\n", "'self.yaml' is nested without end, or has more than 1048576 "),
    "laughs.yaml": (LAUGHS.encode(), "'laughs.yaml' is nested without end, or has more than 1048576 values."),
    "deep.json": (b"[" * 500 + b"]" * 500, "'deep.json' cannot be read: it is nested more than 100 levels deep."),
    "key.yaml": (b"- {1: a}\n", "item 1 of 'key.yaml' has the key 1; it has to be a setting, such as prompt."),
    "day.yaml": (b"- {prompt: a, seeds: 2026-01-01}\n", "item 1 of 'day.yaml': seeds is a date"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_with_a_file_is_one_line_before_anything_is_loaded(embedlab, name, unread):
    content, line = WRONG[name]
    if content is not None:
        Path(name).write_bytes(content)
    code, out, err = embedlab(f"prompts=@{name}", plain=True)
    assert (code, out) == (2, "")
    assert err.startswith(f"embedlab: {line}")
    assert err.count("\n") == 1
    assert not Path("multirun").exists()


WORDS = {
    "prompts=anmals": "there is no set of prompts 'anmals'; try: prompts=animals; there are ",
    "prompts=a.txt": "there is no set of prompts 'a.txt'; there are animals, ",
    "prompts=": "there is no set of prompts ''; ",
    "prompts=@": "prompts=@FILE is ''; it has to be the name of a file or a folder.",
    "prompts=@.": "'.' cannot be read: it is a folder.",
    "prompts=@/dev/zero": "'/dev/zero' cannot be read: it is a pipe or a device.",
    "prompts=@\udc80": "prompts=@FILE is '\\udc80', which is no text in UTF-8.",
    "prompts=\udc80": "there is no set of prompts '",
    "prompts.most=3": "prompts.most=3 is of a list; prompts=@FILE names one.",
    "prompts=@a.txt prompts.most=0": "prompts.most is '0'; it has to be a whole number from 1 on.",
    "prompts.wildcard=x": "there is no setting 'prompts.wildcard'; try: prompts.wildcards=x",
    "prompts=@a.txt prompts=@b.txt": "prompts is given twice: @a.txt and @b.txt; leave one out.",
    "prompts=@a.txt prompt=x": "prompt is given twice: by the list (line 1 of 'a.txt') and by the command line; ",
    "explain prompts=@a.txt": "explain is of one cell; give it one prompt in the place of prompts=@a.txt.",
    "profile prompts=@a.txt": "profile is of one cell; give it one prompt in the place of prompts=@a.txt.",
    "prompts=@a.txt --cfg job": "--cfg is of one cell; give it one prompt in the place of prompts=@a.txt.",
    "-m resume=out prompts=@a.txt": "resume=FOLDER goes on with the rows that the sweep had; leave out prompts=",
    "prompts=@a.txt prompts.wildcards=w": "prompts.wildcards is read with prompts.combinatorial=true.",
    "prompts=@a.txt prompts.combinatorial=yes": "prompts.combinatorial is 'yes'; it has to be true or false.",
    "prompts.combinatorial=true": "prompts.combinatorial=true needs a template, and the prompt has none: ",
    "prompts.combinatorial=true prompt={a|b": "the prompt cannot be read by dynamicprompts at '{a|b' (line 1, column ",
    "prompts.combinatorial=true prompt=__x__": "the prompt asks for the wildcard __x__; prompts.wildcards=FOLDER says ",
    "prompts.combinatorial=true prompt={~a|b}": "the prompt asks for chance or turns (~ or @); here all combinations ",
    "prompts.combinatorial=true prompt=${y}": "the prompt is refused by dynamicprompts: Variable y is not defined",
    "prompts.combinatorial=true prompt={1-20$$a|b|c|d|e|f|g|h|i}": "the prompt stands for more than 10000 prompts; ",
    "prompts.combinatorial=true prompt= prompts.wildcards=no": "prompts.wildcards is 'no', which is no folder; ",
    "prompts.combinatorial=true prompt=": "the prompt stands for no prompt: ''.",
    "+anmal=cat": "there is no setting 'anmal', and none uses it; a text that does: 'prompt=a ${anmal}'.",
    "-m +anmal=cat,dog": "there is no setting 'anmal', and none uses it; a text that does: 'prompt=a ${anmal}'.",
    "animal=cat prompt=${animal}": "'animal' is no setting; a key of your own has a plus: +animal=cat",
    "+anmal=cat prompt=${animal}": "${animal} takes the value of a setting that is not there; in a text it is written ",
    "prompts=@a.txt sampler.stepz=1": "there is no setting 'sampler.stepz'; try: embedlab -m ",
}


@pytest.mark.parametrize("words", WORDS)
def test_what_is_wrong_with_the_words_about_a_list_is_one_line(embedlab, words, unread):
    Path("a.txt").write_text("a cat\na dog\n")
    code, out, err = embedlab(*words.split(), "hydra.sweep.dir=out", "hydra.run.dir=out", plain=True)
    assert (code, out) == (2, "")
    assert err.startswith(f"embedlab: {WORDS[words]}")
    assert err.count("\n") == 1
    assert not Path("out").exists()


# ── sweeps ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_file_is_a_sweep_with_a_job_a_line_that_draws_what_each_prompt_draws_alone(embedlab):
    lines = ["a red fox, [by] {x}", 'it\'s "${x}" = (a:1.2)', "a | b \\"]
    Path("my, list.txt").write_text("\n".join(lines), encoding="utf-8")
    code, _, err = embedlab("prompts=@my, list.txt", "seeds=[0]", "hydra.sweep.dir=out")
    assert code == 0, err
    found = results()
    assert [found[n]["prompt"] for n in range(3)] == lines
    assert [axis["key"] for axis in content(read(Path("out")))["axes"]] == ["prompt"]
    embedlab(f"prompt={quoted(lines[1])}", "seeds=[0]", "hydra.run.dir=alone")
    assert pixels("alone/seed-0.png") == pixels("out/1/seed-0.png") != pixels("out/0/seed-0.png")
    plan = json.loads(Path("out/sweep.json").read_text())
    assert "prompts=@my, list.txt" in plan["command"]
    assert [list(settings_of(row).values()) for row in plan["prompts"]] == [[line] for line in lines]


def test_a_table_sets_what_its_columns_say_and_its_names_are_the_axis(embedlab):
    Path("a.csv").write_text('name,prompt,seeds,guidance.scale\nat night,"a cat, a dog","0,1",3\nby day,an owl,[2],\n')
    code, out, err = embedlab(
        "-m", "prompts=@a.csv", "sampler.steps=1,2", "hydra.sweep.dir=out", "seeds=null", plain=True
    )
    assert (code, out) == (2, "")
    assert "seeds is given twice" in err
    code, out, err = embedlab(
        "-m", "prompts=@a.csv", "sampler.steps=1,2", "hydra.sweep.dir=out", "tracker=silent", plain=True
    )
    assert code == 0, err
    found = results()
    assert [found[n]["overrides"].get("guidance.scale") for n in range(4)] == [3, 3, None, None]
    assert [[p["seed"] for p in found[n]["pictures"]] for n in range(4)] == [[0, 1], [0, 1], [2], [2]]
    assert "at night, scale 3, steps 1" in out
    assert [axis["key"] for axis in content(read(Path("out")))["axes"]] == ["name", "sampler.steps", "seed"]
    _, across, _ = layout(results_of(Path("out")))
    assert across.labels[-1] == "by day, steps 2"
    command = found[2]["command"].replace("embedlab ", "")
    assert "+name=" in command
    assert "prompts" not in command


def test_a_text_of_any_part_arrives_as_itself(embedlab):
    row = {"prompt": "a cat ${y}", "guidance.negative": "b \\${x} \\", "operators.replace.by": "dog ${z}"}
    Path("a.json").write_text(json.dumps([row]))
    edit = ["operators=[replace]", "operators.replace.rows=cat", "operators.replace.lengths=repeat"]
    words = [*edit, "seeds=[0]", "hydra.sweep.dir=out"]
    code, _, err = embedlab("prompts=@a.json", *words)
    assert code == 0, err
    config = results()[0]["config"]
    assert [config["prompt"], config["guidance"]["negative"], config["operators"]["replace"]["by"]] == list(
        row.values()
    )
    assert results()[0]["label"] == "cat → dog ${z}"


def test_a_sweep_over_a_list_is_resumed_with_the_rows_it_had(embedlab):
    Path("a.txt").write_text("a cat\na dog\nan owl\n")
    assert embedlab("prompts=@a.txt", "seeds=[0]", "hydra.sweep.dir=out")[0] == 0
    before = pixels("out/1/seed-0.png")
    Path("out/1/result.json").unlink()
    Path("out/1/seed-0.png").unlink()
    Path("a.txt").write_text("something else\n")
    code, out, err = embedlab("-m", "resume=out", plain=True)
    assert code == 0, err
    assert pixels("out/1/seed-0.png") == before
    assert "a dog" in out
    plan = json.loads(Path("out/sweep.json").read_text())
    assert len(plan["prompts"]) == 3
    for row, why in (
        (["hydra.run.dir=/tmp"], "changes how Hydra works"),
        (["prompt={_target_:os.getcwd}"], "is refused"),
        (["store=/"], "names a folder outside of the sweep"),
    ):
        Path("out/sweep.json").write_text(json.dumps({**plan, "prompts": [row]}))
        code, _, err = embedlab("-m", "resume=out", plain=True)
        assert code == 2
        assert why in err
    Path("out/sweep.json").write_text(json.dumps({**plan, "prompts": [3]}))
    code, _, err = embedlab("-m", "resume=out", plain=True)
    assert (code, err.count("\n")) == (2, 1)
    assert "does not say which rows its list of prompts had" in err


def test_one_row_and_batches_of_a_sweep(embedlab):
    Path("a.txt").write_text("a cat\na dog\nan owl\n")
    assert embedlab("prompts=@a.txt", "prompts.most=1", "seeds=[0]", "hydra.sweep.dir=one")[0] == 0
    assert [one["prompt"] for one in results("one").values()] == ["a cat"]
    words = ["prompts=@a.txt", "seeds=[0]", "hydra.sweep.dir=out", "hydra.sweeper.max_batch_size=2"]
    assert embedlab(*words)[0] == 0
    assert {n: one["prompt"] for n, one in results().items()} == {0: "a cat", 1: "a dog", 2: "an owl"}


def test_another_launcher_is_refused(embedlab):
    Path("a.txt").write_text("a cat\na dog\n")
    code, _, err = embedlab("prompts=@a.txt", "hydra/launcher=basic", "hydra.sweep.dir=out")
    assert code == 2
    assert err.strip().endswith("a list of prompts is for the launchers of embedlab: leave out hydra/launcher=….")


def test_keys_of_ones_own_stand_in_a_prompt(embedlab):
    code, out, err = embedlab("-m", "+animal=cat,dog", "prompt=a ${animal}", "seeds=[0]", "hydra.sweep.dir=out")
    assert code == 0, err
    assert {n: one["prompt"] for n, one in results().items()} == {0: "a cat", 1: "a dog"}
    assert "animal dog" in out
    Path("a.csv").write_text("animal,colour\ncat,red\ndog,1.50\n")
    code, _, err = embedlab("prompts=@a.csv", "prompt=a ${colour} ${animal}", "seeds=[0]", "hydra.sweep.dir=table")
    assert code == 0, err
    assert {n: one["prompt"] for n, one in results("table").items()} == {0: "a red cat", 1: "a 1.50 dog"}
    assert embedlab("explain", "+animal=cat", "prompt=a ${animal}", "tracker=silent")[0] == 0
    assert embedlab("+animal=cat", "prompt=a ${animal}", "seeds=[0]", "hydra.run.dir=single")[0] == 0
    one = json.loads(Path("single/result.json").read_text())
    assert one["prompt"] == "a cat"
    assert "'prompt=a ${animal}'" in one["command"]
    weighted = ["+animal=cat,dog", "language=a1111", 'prompt="a (${animal}:1.3)"', "seeds=[0]"]
    code, _, err = embedlab("-m", *weighted, "hydra.sweep.dir=weighted")
    assert code == 0, err
    assert {n: one["prompt"] for n, one in results("weighted").items()} == {0: "a (cat:1.3)", 1: "a (dog:1.3)"}
    assert embedlab("+animal=cat", *weighted[1:], "hydra.run.dir=one")[0] == 0


@pytest.mark.parametrize("name", sorted(settings.options("prompts")))
def test_a_named_set_is_of_words_that_the_default_model_knows(name, emoji):
    found = [settings_of(row) for row in rows_of(asked([f"prompts={name}"]))]
    assert len({row["+name"] for row in found}) == len(found) > 1
    for row in found:
        texts = [piece.text for piece in pieces(parse(row["prompt"], row.get("language", "plain")))]
        assert {word.lower() for text in texts for word in words_in([text])} <= set(emoji.words)


def test_labels_of_a_list():
    named = Result("done", label="as written", name=f"+name={quoted('by day, 5')},prompt={quoted('an owl')}")
    assert label(named) == "by day, 5"
    assert label(Result("done", label="as written", name=f"prompt={quoted('it is, an owl')}")) == "prompt it is, an owl"


def test_the_rows_of_a_job_take_the_place_of_their_number():
    assert with_rows(["+prompts_row=1", "a=2"], [["prompt='a'"], ["prompt='b'", "seeds=[1]"]]) == [
        "prompt='b'",
        "seeds=[1]",
        "a=2",
    ]
    assert with_rows(["+prompts_row=1"], []) == ["+prompts_row=1"]


# ── combinations ──────────────────────────────────────────────────────────────────────────────────────────────────


TEMPLATES = [
    "a {cat|dog} on {grass|sand, wet}",
    "{2$$a|b|c}",
    "{1-2$$ and $$a|b|c}",
    "__animal__ x",
    "__sub/*__ {__colour__|y}",
    "{0.3::a|0.7::b}",
    "(red:1.2) [a:b:0.5] {c|d}",
    "${x={a|b}} ${x}, ${x}",
    "a plain text",
]


@pytest.fixture
def wildcards(tmp_path) -> Path:
    folder = tmp_path / "wildcards"
    (folder / "sub").mkdir(parents=True)
    (folder / "animal.txt").write_text("cat\ndog\n# none\n__colour__ owl\n")
    (folder / "colour.txt").write_text("red\nblue\n")
    (folder / "sub" / "one.txt").write_text("one\n")
    (folder / "self.txt").write_text("__other__\n")
    (folder / "other.txt").write_text("x __self__\n")
    return folder


@pytest.mark.parity("dynamicprompts 0.31", "combinations, in order", "prompts.combinatorial=true", "live")
@pytest.mark.parametrize("template", TEMPLATES)
def test_combinations_are_those_of_dynamicprompts(template, wildcards):
    theirs = CombinatorialPromptGenerator(WildcardManager(wildcards)).generate(template, 10_000)
    assert Combinations(wildcards)(template, "it") == list(dict.fromkeys(theirs))
    assert Combinations(wildcards, most=2)(template, "it") == theirs[:2]


VARIANTS = st.recursive(
    st.sampled_from(["a", "b c", "d, e", "(f:1.2)"]),
    lambda inner: st.lists(inner, min_size=1, max_size=3).map(lambda them: f"{{{'|'.join(them)}}}"),
    max_leaves=6,
)


@given(st.lists(VARIANTS, min_size=1, max_size=3).map(" ".join))
def test_combinations_are_those_of_dynamicprompts_for_any_template(template):
    theirs = CombinatorialPromptGenerator().generate(template, 10_000)
    assert Combinations()(template, "it") == list(dict.fromkeys(theirs))


TOKENS = [
    *(
        "{",
        "}",
        "|",
        "$$",
        "2$$",
        "1-2$$",
        "::",
        "0.5::",
        "__",
        "a",
        "b c",
        ",",
        "${",
        "${x=",
        "${x",
        "!",
        "}",
        "%{",
        "...",
        "#",
    ),
    *("\n", "~", "@", "é", "(", ")", ":", " ", "\\", "__a__", "{2$$ and $$a|b}", "${x={a|b}}", "<", ">", "[", "]", "?"),
]


@given(st.lists(st.sampled_from(TOKENS), max_size=14).map("".join))
@example("?__$$\n")
@example("__\n__|0.5::")
@example("${x={a|b}}")
@example("{" * 40)
@example("{a|" * 40)
def test_any_template_is_prompts_or_one_line(template):
    try:
        assert 0 < len(Combinations(most=20)(template, "it")) <= 20
    except ConfigError as error:
        assert len(str(error).splitlines()) == 1  # noqa: PT017


def test_a_wildcard_that_is_not_there_or_leads_to_itself_is_refused(wildcards):
    with pytest.raises(ConfigError, match=r"it asks for the wildcard __nope__; '.*' has animal, colour, other, self"):
        Combinations(wildcards)("__nope__", "it")
    with pytest.raises(ConfigError, match="__self__, a line of __other__: the wildcard __self__ leads to itself"):
        Combinations(wildcards)("__self__", "it")


def test_a_choice_is_a_mix_until_combinations_are_asked_for(embedlab, wildcards):
    Path("a.txt").write_text("a {cat|dog:0.3}\nan __animal__\n")
    assert [row["prompt"] for row in rows("a.txt")] == ["a {cat|dog:0.3}", "an __animal__"]
    words = ["prompts.combinatorial=true", f"prompts.wildcards={wildcards}"]
    asked_for = [row["prompt"] for row in rows("a.txt", *words)]
    assert asked_for == ["a cat", "a dog:0.3", "an blue owl", "an red owl", "an cat", "an dog"]
    template = "prompt=a {cat|dog}, [red|blue] {sand|grass}"
    code, _, err = embedlab("prompts.combinatorial=true", template, "seeds=[0]", "hydra.sweep.dir=out")
    assert code == 0, err
    assert len(results()) == 4
    plan = json.loads(Path("out/sweep.json").read_text())
    assert asked(plan["command"]).template == template.removeprefix("prompt=")
    Path("out/2/result.json").unlink()
    assert embedlab("-m", "resume=out", plain=True)[0] == 0
    assert len(results()) == 4


def test_combinations_of_a_named_row_are_numbered(tmp_path):
    (tmp_path / "a.csv").write_text("name,prompt\nsun,a {b|c}\nmoon,d\n")
    got = rows(tmp_path / "a.csv", "prompts.combinatorial=true")
    assert [(row["+name"], row["prompt"]) for row in got] == [("sun 1", "a b"), ("sun 2", "a c"), ("moon", "d")]
