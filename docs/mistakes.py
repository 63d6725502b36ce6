"""One page for each of the commonest mistakes: the command, the line that embedlab answers with, why, what to do.

    python docs/mistakes.py    # runs all of them (a second or two each) and writes docs/mistakes.md and docs/mistakes/

The lines are those that the commands print; `tests/test_docs.py` runs every one of them again and compares.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parent.parent
PAGES = ROOT / "docs" / "mistakes"
MOST = 4  # names of a long list that a page shows
BLOCKED = """
import sys

hidden = sys.argv.pop(1)


class Without:
    def __init__(self, finder):
        self.finder = finder

    def find_distributions(self, *context):
        found = getattr(self.finder, "find_distributions", lambda *_: ())(*context)
        return (one for one in found if one.metadata["Name"] != hidden)

    def find_spec(self, name, *more):
        return None if name.split(".")[0] == hidden else self.finder.find_spec(name, *more)


sys.meta_path[:] = map(Without, sys.meta_path)
for name in [name for name in sys.modules if name.split(".")[0] == hidden]:
    del sys.modules[name]
"""  # as if a package were not installed
MAIN = "import sys; from embedlab.cli.main import main; sys.argv[0] = 'embedlab'; main()"
Run = Callable[..., "subprocess.CompletedProcess[str]"]  # (code, *words, cwd): a Python program and its words


@dataclass(frozen=True)
class Mistake:
    """A page. `without` names a package that is not there; `why` and `do` are Markdown."""

    name: str
    title: str
    typed: str
    why: str
    do: str
    without: str = ""


MISTAKES = (
    # ── words and rows ──
    Mistake(
        "word",
        "A word that is not in the prompt",
        "operators=[replace] operators.replace.rows=kitten operators.replace.by=cat",
        "An operator changes rows that are in the prompt. The prompt here is the default one, and it has no such word. "
        "Words are looked for as the tokenizer splits them, so `cat` is not found in `catfish`.",
        "Name one of the words that the line lists, or set the prompt: `'prompt=A picture of a kitten'`. "
        "`embedlab explain` shows which token is in which row. See [which rows](../operators.md#which-rows).",
    ),
    Mistake(
        "rows_left_out",
        "An operator without rows, on a prompt of your own",
        "'prompt=a cat' operators=[replace] operators.replace.by=dog",
        "Left out, `rows` is the word “puppy” of the default prompt. Another prompt has no word that is meant by "
        "itself.",
        "Say which word is edited; the line ends with the command that does.",
    ),
    Mistake(
        "row_number",
        "A row that the prompt does not have",
        "operators=[replace] operators.replace.rows=80 operators.replace.by=cat",
        "A prompt of up to 75 tokens is one window of 77 rows: a start, the tokens, an end, and padding. Row 80 "
        "would be in "
        "a second window, which this prompt does not need.",
        "Give a number from 0 to 76, a word, or a role such as `{role: pad}`. "
        "See [which rows](../operators.md#which-rows).",
    ),
    Mistake(
        "lengths",
        "A word replaced by a phrase",
        'operators=[replace] operators.replace.by="a big cat"',
        "Rows take the place of rows. “puppy” is one token, “a big cat” is three, and a prompt does not grow.",
        "Choose a word of as many tokens, or say how rows are matched with `operators.replace.lengths`: `repeat`, "
        "`resample` or `zero`. To have the whole phrase in the prompt, write it there.",
    ),
    Mistake(
        "weights_of_ends",
        "Several words to move toward, and one weight",
        "operators=[interpolate] operators.interpolate.toward=[cat,dog]",
        "Each word that the row moves toward takes a weight of its own, and the row keeps what they leave of 1.",
        "Give a list: `operators.interpolate.weight=[0.3,0.3]`.",
    ),
    Mistake(
        "stage",
        "A stage that there is not",
        "operators=[replace] operators.replace.by=cat operators.replace.stage=hiden",
        "A stage says where on the way through the text encoder an edit takes place.",
        "Choose one that the line lists. See [at which stage](../operators.md#at-which-stage).",
    ),
    Mistake(
        "stretch",
        "A factor out of range",
        "operators=[stretch] operators.stretch.factor=0",
        "The table of positions can be drawn out, and not pressed together; 64 times is 3,668 positions.",
        "Give a number from 1 to 64.",
    ),
    # ── the command line ──
    Mistake(
        "setting",
        "A setting that is called otherwise",
        "steps=5",
        "Settings stand in groups: the number of steps belongs to the sampler.",
        "Take the command at the end of the line. Names of other tools (`cfg`, `num_inference_steps`, `width`) are "
        "understood there as well. All settings: `embedlab --help`.",
    ),
    Mistake(
        "dashes",
        "Settings with dashes",
        "--steps 5",
        "embedlab's command line is Hydra's: settings are `KEY=VALUE`, without dashes. Only flags have them (`-m`, "
        "`--help`, `--version`).",
        "Take the command at the end of the line.",
    ),
    Mistake(
        "quotes",
        "A prompt without quotes",
        "prompt=a red fox",
        "The shell cuts a line at blanks, so embedlab gets `prompt=a`, and then two words more.",
        "Quote the whole word, as the line shows.",
    ),
    Mistake(
        "signs",
        "A prompt with brackets, commas or colons",
        "'prompt=a (red:1.3) cat' weighting=a1111",
        "Hydra reads brackets, commas and colons as its own. A text that has them is quoted twice: once for the shell, "
        "once for Hydra.",
        "Write it as the line shows. In a file ([lists of prompts](../prompts.md#lists-of-prompts)) nothing has to be "
        "quoted.",
    ),
    Mistake(
        "number_for_a_prompt",
        "A number for a prompt",
        "prompt=5",
        "`5` is a number, and a prompt is a text.",
        "Quote it twice, as the line shows.",
    ),
    Mistake(
        "sweep",
        "Several values without -m",
        "guidance.scale=2,4",
        "Values with commas between them are a sweep, and a sweep is asked for with `-m`.",
        "`embedlab -m guidance.scale=2,4`. See [Sweeps](../sweeps.md).",
    ),
    Mistake(
        "seeds_list",
        "Seeds without brackets",
        "seeds=0,1",
        "`seeds` is a list, with a picture for each seed. `0,1` without brackets are two values of a sweep.",
        "`seeds=[0,1]`. In zsh quote it: `'seeds=[0,1]'`.",
    ),
    Mistake(
        "seeds_negative",
        "A seed below 0",
        "seeds=-1",
        "In some tools -1 asks for a random seed. Here a seed is a whole number from 0, so that every picture can "
        "be made "
        "again.",
        "Choose numbers: `seeds=[0,1,2,3]`.",
    ),
    Mistake(
        "command",
        "A command that there is not",
        "galery outputs",
        "The first word is a command or a setting.",
        "Take the command at the end of the line; `embedlab --help` lists all.",
    ),
    Mistake(
        "experiment",
        "A study that there is not",
        "experiment=puppy_to_dog",
        "The studies are the files of `conf/experiment`.",
        "Choose one of [the studies](../studies.md).",
    ),
    Mistake(
        "operator",
        "An operator that there is not",
        "operators=[lerp]",
        "Operators are chosen by the names of their files in `conf/operators`. Linear interpolation is `interpolate`.",
        "Choose one of [the operators](../operators.md).",
    ),
    Mistake(
        "slot",
        "A setting of an operator that is not chosen",
        "operators.interpolate.weight=0.3",
        "An operator has settings once it is in the list `operators`.",
        "Take the command at the end of the line: it chooses the operator first.",
    ),
    Mistake(
        "tracker",
        "No tracker",
        "tracker=none",
        "To log nothing is an option, and it is called `silent`.",
        "`tracker=silent`; `tracker=disk` writes plain files. See [Trackers](../trackers.md).",
    ),
    # ── sampling ──
    Mistake(
        "scheduler",
        "A scheduler by another tool's name",
        "sampler=dpm++",
        "Schedulers have short names without signs.",
        "Take the command that the line suggests. What each is called elsewhere: [Schedulers](../schedulers.md).",
    ),
    Mistake(
        "eta",
        "A setting that does not fit the scheduler",
        "sampler=euler sampler.eta=0.5",
        "η says how much noise DDIM adds in each step. Euler adds none, so the number would do nothing.",
        "Leave it out, or take a scheduler that has it: `sampler=ddim sampler.eta=0.5`. For noise in each step "
        "there is "
        "also `sampler=euler_ancestral`. See [Schedulers](../schedulers.md).",
    ),
    Mistake(
        "order",
        "An order that the scheduler does not have",
        "sampler=dpmpp_2m sampler.order=5",
        "A step of DPM-Solver++ is made of one to three predictions.",
        "`sampler.order=2` is the usual one; left out, it is the scheduler's own.",
    ),
    Mistake(
        "steps",
        "Too many steps, or none",
        "sampler.steps=2000",
        "The models were trained with 1,000 noise levels, and a step needs one of its own.",
        "25 steps are usual; 8 to 12 are enough for a look.",
    ),
    Mistake(
        "scale",
        "A word where a number is due",
        "guidance.scale=high",
        "The guidance scale is a number; 1 is the prompt alone.",
        "`guidance.scale=4` is the default. See [Guidance](../guidance.md).",
    ),
    Mistake(
        "size",
        "A size that the model cannot have",
        "size=100",
        "Latents are 8 times smaller than the picture, and the UNet halves them again, so that only some sizes work.",
        "Take the size that the line names. `size=picture` is the size of the picture that sampling starts from.",
    ),
    Mistake(
        "strength",
        "A strength out of range",
        "start=picture start.picture=puppy.png start.strength=1.5",
        "Strength is the share of the steps that is run: 1 is all of them, from noise; 0 would leave the picture "
        "alone.",
        "Give a number above 0 and up to 1, or a step with `start.step`. See [Where sampling starts](../starts.md).",
    ),
    Mistake(
        "start_step",
        "A picture to start from, and no strength",
        "start=picture start.picture=puppy.png",
        "How much of the picture stays depends on the step at which sampling begins, and there is no value that "
        "suits all.",
        "`start.strength=0.6`, or `start.step=10`.",
    ),
    Mistake(
        "picture",
        "A picture that is not there",
        "start=picture start.picture=nothing.png start.strength=0.5",
        "The path is looked for from the folder in which the command runs.",
        "Mend the path. `puppy.png` is a picture that ships with embedlab.",
    ),
    Mistake(
        "no_picture",
        "A file that is no picture",
        "start=picture start.picture=notes.txt start.strength=0.5",
        "The file is there, but Pillow cannot read it as a picture.",
        "Give a PNG, JPEG or WebP.",
    ),
    Mistake(
        "mask",
        "A mask of another size",
        "start=picture start.picture=puppy.png start.mask=small.png",
        "Each pixel of a mask says what becomes of the same pixel of the picture: white is drawn anew, black stays.",
        "Make the mask as large as the picture. See [Where sampling starts](../starts.md).",
    ),
    Mistake(
        "schedule",
        "Times that do not rise",
        "operators=[interpolate] "
        "'operators.interpolate.weight={_target_: embedlab.schedule.Ramp, values: [0, 1], at: [0.6, 0.2]}'",
        "A ramp goes through its points in time, and on this clock time runs from 0 to 1. (On the clock `sigma` it "
        "falls.)",
        "Turn the two lists round: `values: [1, 0], at: [0.2, 0.6]`. See [Schedules](../schedules.md).",
    ),
    Mistake(
        "interval",
        "An interval that ends before it begins",
        "'guidance.interval=[0.8,0.2]'",
        "Guidance works from the first time to the second one.",
        "`guidance.interval=[0.2,0.8]`.",
    ),
    Mistake(
        "combine",
        "A way to combine prompts that there is not",
        "language=a1111 'prompt=a cat AND a dog' guidance.combine=add",
        "`AND` joins prompts, and `guidance.combine` says how their predictions become one.",
        "Choose one that the line lists. See [Guidance](../guidance.md#several-prompts-in-one-picture).",
    ),
    # ── prompts ──
    Mistake(
        "language",
        "A prompt that its language calls an error",
        """language=compel "prompt='(\\"a cat\\", \\"a dog\\").blend(1)'\"""",
        "compel wants a weight for each prompt that it blends. A line and a column say where in the prompt it is.",
        "`.blend(1, 1)`. See [Prompts and their languages](../prompts.md).",
    ),
    Mistake(
        "weighting",
        "A weighting that there is not",
        "weighting=webui",
        "A weighting is called after the tool whose formula it is.",
        "A1111's is `weighting=a1111`; `tool=a1111` sets all that makes A1111's numbers. "
        "See [What a weight does](../weighting.md).",
    ),
    Mistake(
        "prompt_2",
        "A second prompt for a model with one text encoder",
        "'prompt_2=a dog'",
        "SDXL has two text encoders. Stable Diffusion 1 and 2, and the model that ships, have one.",
        "Leave it out, or load an SDXL.",
    ),
    Mistake(
        "skip",
        "More layers skipped than there are",
        "encoder.skip=9",
        "`encoder.skip` is how many of the last layers of the text encoder are left out. CLIP-L has 12, the model "
        "that ships "
        "has 4.",
        "Give a number up to the one that the line names.",
    ),
    Mistake(
        "attention_word",
        "A map of a word that is not in the prompt",
        "attention=maps attention.words=[kitten]",
        "A map shows where a word of the prompt is looked at.",
        "Name words of the prompt; left out, there is a map of each. See [Attention](../attention.md).",
    ),
    Mistake(
        "list_file",
        "A list of prompts that is not there",
        "prompts=@missing.txt",
        "`@` names a file, from the folder in which the command runs.",
        "Mend the path. Sets that ship are named without `@`: `prompts=animals`.",
    ),
    Mistake(
        "list_column",
        "A column that nothing uses",
        "prompts=@animals.csv",
        "A column of a table is a setting, or a key of your own. The default prompt does not use the key `animal`, "
        "so the "
        "column would change nothing.",
        "Use it: `'prompt=a ${colour} ${animal}'`. See [lists of prompts](../prompts.md#lists-of-prompts).",
    ),
    # ── models, files, packages ──
    Mistake(
        "model",
        "A model that is not there",
        "model=custom model.name=./nothing",
        "A model is `emoji`, a folder, a `.safetensors` or `.ckpt` file, or a hub id such as `owner/name`.",
        "Mend the path. See [Models](../models.md).",
    ),
    Mistake(
        "model_folder",
        "A folder that is no model",
        "model=custom model.name=sd15",
        "A folder as diffusers saves it holds `model_index.json` and a folder for each part. Often it is the folder "
        "below, "
        "or the one above, that is meant.",
        "Name the folder that holds `model_index.json`. A single file is named itself. See [Models](../models.md).",
    ),
    Mistake(
        "model_file",
        "A file that is no model",
        "model=custom model.name=notes.txt",
        "Models in a single file are `.safetensors` or `.ckpt`; the kind is read from the tensors inside.",
        "Name such a file. See [Models](../models.md).",
    ),
    Mistake(
        "dtype",
        "A number type by another name",
        "model.dtype=half",
        "Number types have torch's names.",
        "`model.dtype=float16`. See [On a GPU](../gpu.md).",
    ),
    Mistake(
        "engine_dtype",
        "An engine that takes another number type",
        "engine=openvino model.dtype=bfloat16",
        "OpenVINO is given a float32 model; half precision is a setting of the engine.",
        "Set the number type that the line names. See [Engines](../engines.md).",
    ),
    Mistake(
        "extra",
        "A package that is not installed",
        "engine=openvino",
        "Packages that few need are extras, so that embedlab is small to install.",
        "Install the extra that the line names.",
        without="openvino",
    ),
    Mistake(
        "concept",
        "A concept that is not there",
        "model.concepts=[cat.pt]",
        "A concept is a file of textual inversion: rows for a new word.",
        "Mend the path. See [concepts](../models.md#concepts).",
    ),
    Mistake(
        "latents",
        "Latents that are not there",
        "start=latents start.latents=nothing.pt",
        "The path is looked for from the folder in which the command runs.",
        "Give a `.safetensors`, `.npy` or `.pt` that is there. See [Where sampling starts](../starts.md).",
    ),
    Mistake(
        "resume",
        "A sweep to resume that is not there",
        "-m resume=outputs/nothing",
        "A sweep's folder holds `sweep.json`, its plan.",
        "Name the folder that the sweep printed at its end, or the one above its jobs. See [Sweeps](../sweeps.md).",
    ),
    Mistake(
        "gallery",
        "A gallery of nothing",
        "gallery outputs/nothing",
        "Commands that look at a sweep read its folder.",
        "Name the folder of a sweep or of a single run.",
    ),
    Mistake(
        "replay",
        "A picture of another tool",
        "replay plain.png",
        "`replay` makes a picture again from the settings inside it. Other tools write others, and many web sites "
        "take all "
        "of them out.",
        "Give a PNG as embedlab wrote it.",
    ),
)


def prepare(folder: Path) -> None:
    """The files that the commands name."""
    Image.new("L", (100, 100), 255).save(folder / "small.png")
    Image.new("RGB", (64, 64)).save(folder / "plain.png")
    (folder / "notes.txt").write_text("a text\n", encoding="utf-8")
    (folder / "animals.csv").write_text("animal,colour\ncat,red\n", encoding="utf-8")
    (folder / "sd15" / "unet").mkdir(parents=True)


def answered(mistake: Mistake, folder: Path, run: Run) -> str:
    """The line that a command is answered with; RuntimeError where it is not refused in one."""
    code, words = MAIN, shlex.split(mistake.typed)
    if mistake.without:
        code, words = BLOCKED + MAIN, [mistake.without, *words]
    done = run(code, *words, cwd=folder)
    lines = [line for line in done.stderr.splitlines() if line.startswith("embedlab: ")]
    if done.returncode != 2 or len(lines) != 1:
        raise RuntimeError(f"embedlab {mistake.typed}: exit code {done.returncode}, {done.stderr[-500:]}")
    return shown(lines[0], folder)


def shown(line: str, folder: Path) -> str:
    """A line as a page has it: without the folder in which it was run, of a long list the first names."""
    line = line.replace(f"{folder}/", "").replace(str(folder), "/home/you")

    def cut(found: re.Match[str]) -> str:
        names = found[0].split(", ")
        return found[0] if len(names) <= 2 * MOST else f"{', '.join(names[:MOST])}, …"

    return re.sub(r"(?<= of )[\w+]+(?:, [\w+]+)+", cut, line)


def quoted(line: str) -> str:
    """A line as code in a table."""
    text = line.removeprefix("embedlab: ").replace("|", "\\|")
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def pages(run: Run, at_once: int = 1) -> Iterator[tuple[str, str]]:
    """Every page by its name, the list of all first."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made).resolve()
        prepare(folder)
        with ThreadPoolExecutor(at_once) as pool:
            lines = dict(
                zip((m.name for m in MISTAKES), pool.map(lambda m: answered(m, folder, run), MISTAKES), strict=True)
            )
    rows = [f"| [{m.title}](mistakes/{m.name}.md) | {quoted(lines[m.name])} |" for m in MISTAKES]
    intro = (
        "What is wrong with a command is said in one line, before a model is read wherever that can be known: what was "
        f"given, what would fit, what to try. These are {len(MISTAKES)} of the commonest, each with a page. The "
        f"lines are what "
        "the commands print (`python docs/mistakes.py` runs them); of a long list of names the first are shown."
    )
    yield "mistakes.md", f"# Mistakes\n\n{intro}\n\n| | the line |\n|---|---|\n" + "\n".join(rows) + "\n"
    for m in MISTAKES:
        without = f"On a machine without {m.without}:\n\n" if m.without else ""
        typed = f"```bash\nembedlab {m.typed}\n```\n\n```text\n{lines[m.name]}\n```"
        yield (
            f"mistakes/{m.name}.md",
            f"# {m.title}\n\n{without}{typed}\n\n## Why\n\n{m.why}\n\n## What to do\n\n{m.do}\n",
        )


def as_process(code: str, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """A Python program of its own."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", code, *words], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


if __name__ == "__main__":
    PAGES.mkdir(exist_ok=True)
    made = dict(pages(as_process, os.cpu_count() or 1))
    for path in PAGES.glob("*.md"):
        if f"mistakes/{path.name}" not in made:
            path.unlink()
    for name, text in made.items():
        (ROOT / "docs" / name).write_text(text, encoding="utf-8")
