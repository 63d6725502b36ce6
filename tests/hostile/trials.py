"""What a trial is, and the laws that hold for every one of them, whatever was given."""

from __future__ import annotations

import base64
import html
import json
import os
import re
import subprocess
import sys
import unicodedata
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pyarrow.parquet
from PIL import Image

from embedlab.images import is_whole

COUNT = re.compile(r"embedlab: nothing was generated; \d+ of \d+ jobs (is|are) wrong\.")  # ends a sweep's reasons
COMMAND = "import sys; from embedlab.cli.main import main; sys.argv[0] = 'embedlab'; main()"
LONGEST = 120.0  # seconds; whatever takes longer hangs, on a busy machine, too
SECRET = "s3cr3t-value \"with' 7 \\ backslash é"
OTHER = "plain-s3cr3t-0123456789"
SECRETS = {"HOSTILE_TOKEN": SECRET, "HOSTILE_API_KEY": OTHER}


@dataclass(frozen=True)
class Trial:
    """Words of the command line, or a Python call, and what has to come of it.

    `says` is what the one line of a refusal has to hold; None is a trial that works, and prints all of `shows`.
    `before` is run first, in the folder that the trial is run in; it holds a finished `sweep`.
    """

    group: str
    words: tuple[str, ...] = ()
    says: str | None = None
    code: int = 0
    shows: tuple[str, ...] = ()
    hides: tuple[str, ...] = ()
    before: Callable[[Path], None] | None = None
    call: Callable[[Any], Any] | None = None
    environment: dict[str, str] = field(default_factory=dict)
    locale: str = ""
    closed: bool = False  # nobody reads what is printed
    lines: int = 1

    @property
    def name(self) -> str:
        """What it is called in a report."""
        shown = " ".join(self.words) or getattr(self.call, "__name__", "call")
        return f"{self.group}: {ascii(shown)[1:-1][:100]}"


@dataclass(frozen=True)
class Outcome:
    """What came of a trial: exit code (None where it hung), what was printed, and which files are as they were."""

    code: int | None
    out: bytes
    err: bytes
    given: frozenset[str] = frozenset()


def broken(trial: Trial, outcome: Outcome, folder: Path) -> list[str]:
    """The laws that an outcome broke, a line each; none where all is well."""
    if outcome.code is None:
        return [f"it hung for {LONGEST:g} s"]
    wrong = []
    try:
        out, err = outcome.out.decode("utf-8"), outcome.err.decode("utf-8")
    except UnicodeDecodeError as error:
        return [f"what it printed is no UTF-8: {error}"]
    both = out + err
    if "Traceback (most recent call last)" in both:
        wrong.append(f"a traceback: {err[-1500:]}")
    wrong += [f"it printed {sign!a}" for sign in sorted(set(both)) if not fit(sign)]
    if trial.says is None:
        if outcome.code != 0:
            wrong.append(f"exit code {outcome.code}; it should have worked: {err[-800:]}")
        wrong += [f"it did not print {text!r}: {both[-800:]}" for text in trial.shows if text not in both]
    else:
        said = [line for line in err.splitlines() if not line.startswith("notice: ") and not COUNT.fullmatch(line)]
        code = trial.code or 2
        if outcome.code != code:
            wrong.append(f"exit code {outcome.code} instead of {code}: {both[-800:]}")
        if code == 2 and not (len(said) == trial.lines and all(line.startswith("embedlab: ") for line in said)):
            wrong.append(f"{len(said)} lines instead of {trial.lines} that begin with 'embedlab: ': {err[-800:]}")
        if trial.says not in both:
            wrong.append(f"it does not say {trial.says!r}: {both[-800:]}")
        wrong += [f"it did not print {text!r}: {both[-800:]}" for text in trial.shows if text not in both]
    wrong += [f"it printed {text!r}" for text in trial.hides if text in both]
    wrong += [f"a secret was printed ({form})" for form in leaks(outcome.out + outcome.err)]
    if folder.is_dir():
        wrong += files_of(folder, outcome.given)
    return wrong


def fit(sign: str) -> bool:
    """Whether a sign may be printed: no control, no formatting, no half of a pair; joiners are part of emoji."""
    return sign in "\n\u200d\u200c" or unicodedata.category(sign) not in ("Cc", "Cf", "Cs", "Zl", "Zp", "Co")


def forms(secret: str) -> dict[str, bytes]:
    """Ways to write a text."""
    escaped = json.dumps(secret)[1:-1]
    return {
        "as it is": secret.encode(),
        "JSON": escaped.encode(),
        "JSON with letters": json.dumps(secret, ensure_ascii=False)[1:-1].encode(),
        "JSON twice": json.dumps(escaped)[1:-1].encode(),
        "repr": repr(secret)[1:-1].encode(),
        "shell": secret.replace("'", "'\"'\"'").encode(),
        "Hydra": secret.replace("'", "\\'").encode(),
        "YAML": secret.replace("'", "''").encode(),
        "CSV": secret.replace('"', '""').encode(),
        "URL": quote(secret).encode(),
        "form": quote_plus(secret).encode(),
        "HTML": html.escape(secret).encode(),
        "base64": base64.b64encode(secret.encode()),
    }


FORMS = [(f"{name}, {form}", text) for name, secret in SECRETS.items() for form, text in forms(secret).items()]


def leaks(data: bytes) -> list[str]:
    """The forms in which a secret stands in some bytes; folded lines are read as one."""
    flat = re.sub(rb"\\?\n\s*\\?", b" ", data)
    return [name for name, text in FORMS if text in data or text in flat]


def files_of(folder: Path, given: frozenset[str]) -> list[str]:
    """What is wrong with the files below a folder: halves, temporaries, secrets."""
    wrong = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if str(name) in given:
            continue
        wrong += [
            f"the name {str(name)!a} holds a secret ({form})" for form in leaks(str(name).encode(errors="replace"))
        ]
        if path.is_symlink() or not path.is_file() or "given" in name.parts:
            continue
        if re.fullmatch(r"\..*\.\d+", path.name):
            wrong.append(f"{name} is a temporary file")
        data = path.read_bytes()
        if path.suffix == ".png" and "wandb" not in name.parts and not is_whole(path):
            wrong.append(f"{name} is cut short")
        if path.suffix == ".json":
            try:
                json.loads(data.decode("utf-8"))
            except ValueError as error:
                wrong.append(f"{name} is no JSON: {error}")
        wrong += [f"{name} holds a secret ({form})" for form in leaks(opened(path, data))]
    return wrong


def opened(path: Path, data: bytes) -> bytes:
    """The bytes of a file, and those that are compressed in it."""
    parts = [data]
    if path.suffix == ".png":
        try:
            with Image.open(path) as picture:
                parts += [str(text).encode() for text in getattr(picture, "text", {}).values()]
        except OSError:
            pass
    if path.suffix == ".js":
        parts += [zlib.decompress(base64.b64decode(text), 31) for text in re.findall(rb'"(H4sI[A-Za-z0-9+/=]+)"', data)]
    if path.suffix == ".parquet":
        parts.append(str(pyarrow.parquet.read_table(path).to_pylist()).encode())
    return b"\n".join(parts)


class Forks:
    """The process that runs trials."""

    def __init__(self, model: Path):
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUTF8": "0", "LC_ALL": "C.UTF-8"}
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("forks.py")), str(model)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def __call__(self, folder: Path, **order: object) -> Outcome:
        answer = self._ask({"folder": str(folder), **order})
        return Outcome(answer["code"], answer["out"], answer["err"], frozenset(answer["given"]))

    def embedlab(self, *words: str, cwd: Path, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess:
        """As a process `embedlab words` would end."""
        return self.python(COMMAND, *words, cwd=cwd, env=env)

    def python(self, code: str, *words: str, cwd: Path, env: Mapping[str, str] | None = None):
        """As a process `python -c code words` would end, in which embedlab is imported already."""
        order = {"code": code, "words": words, "folder": str(cwd), "environment": dict(env or {})}
        answer = self._ask(order)
        printed = (answer[name].decode() for name in ("out", "err"))
        return subprocess.CompletedProcess([code, *words], answer["code"], *printed)

    def _ask(self, order: Mapping[str, object]) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        return {**answer, **{name: base64.b64decode(answer[name]) for name in ("out", "err")}}

    def close(self) -> None:
        """End it."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(60)


Given = str | tuple[str, ...]  # one word of the command line, or several


def words_of(given: Given) -> tuple[str, ...]:
    """The words of a trial."""
    return (given,) if isinstance(given, str) else tuple(given)


def refused(group: str, says: str, *given: Given, **more: Any) -> list[Trial]:
    """Trials that are refused in one line with a word."""
    return [Trial(group, words_of(one), says, **more) for one in given]


def works(group: str, *given: Given, **more: Any) -> list[Trial]:
    """Trials that work."""
    return [Trial(group, words_of(one), None, **more) for one in given]
