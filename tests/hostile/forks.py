"""Imports embedlab once, draws a small sweep, then runs every trial that comes in as a forked child.

A trial comes as a line of JSON: its number in the table (or its words), the folder to run it in. The answer is a line:
exit code (None where it hung) and what was printed. Other tests send a program instead, with its words, folder and
environment: a process of their own would spend its time on imports.
"""

from __future__ import annotations

import base64
import gc
import json
import locale
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import transformers.models.clip  # noqa: F401
from hydra.core.plugins import Plugins
from table import TABLE
from trials import LONGEST, SECRETS, Trial

import embedlab
from embedlab import models
from embedlab.clean import one_line
from embedlab.cli import (
    launch,  # noqa: F401
    progress,  # noqa: F401
)
from embedlab.cli import main as app
from embedlab.cli.commands import film as film_command  # noqa: F401
from embedlab.cli.commands import gallery as gallery_command  # noqa: F401
from embedlab.cli.commands import replay as replay_command  # noqa: F401
from embedlab.cli.commands import (
    sheet,  # noqa: F401
    sync,  # noqa: F401
)
from embedlab.errors import EmbedlabError
from embedlab.sweep import job  # noqa: F401
from embedlab.sweep import run as batch  # noqa: F401
from embedlab.view import contact_sheet as contact  # noqa: F401
from embedlab.view import (
    gallery,  # noqa: F401
    replay,  # noqa: F401
)
from embedlab.view.film import video  # noqa: F401

MODEL = Path(sys.argv[1]) if len(sys.argv) > 1 else Path()
COMMON = ("model=custom", "model.device=cpu", "sampler.steps=2", "seeds=[0,1]", "tracker=silent")


def whole(words: list[str]) -> list[str]:
    """The words of a command, with the small model and few steps where it does not name others."""
    if words and (words[0] in app.COMMANDS or (words[0].startswith("-") and words[0] not in ("-m", "--multirun"))):
        return words
    if any(word.startswith("resume=") for word in words):
        return words
    given = {word.lstrip("+~").split("=")[0] for word in words}
    more = [f"model.name={MODEL}", *COMMON]
    return [*(word for word in more if word.split("=")[0] not in given), *words]


def redirect(out: Path, err: Path) -> None:
    """Nothing is typed; what is printed goes into files."""
    for number, path in ((0, os.devnull), (1, out), (2, err)):
        file = os.open(path, os.O_RDWR | os.O_CREAT)
        os.dup2(file, number)
        os.close(file)


def streams(encoding: str = "utf-8") -> None:
    """Python's own streams over the files."""
    sys.stdout = open(1, "w", encoding=encoding, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding=encoding, errors="backslashreplace", closefd=False)  # noqa: SIM115


def child(trial: Trial, folder: Path, out: Path, err: Path) -> int:
    """Become the trial."""
    os.chdir(folder)
    sys.path.insert(0, str(folder / "given"))
    os.environ.update(SECRETS)
    os.environ.update(trial.environment)
    redirect(out, err)
    if trial.closed:
        unread, written = os.pipe()
        os.close(unread)
        os.dup2(written, 1)
    if trial.locale:
        locale.setlocale(locale.LC_ALL, trial.locale)
    streams("ascii" if trial.locale else "utf-8")
    sys.argv = ["embedlab", *whole(list(trial.words))]
    try:
        if trial.call is not None:
            trial.call(embedlab)
        else:
            app.main()
    except EmbedlabError as error:
        if trial.call is None:
            raise
        print(f"embedlab: {one_line(error)}", file=sys.stderr)
        return 2
    return 0


def program(out: Path, err: Path, code: str, words: list[str], folder: str, environment: dict[str, str]) -> int:
    """Become `python -c code words` in a folder."""
    os.chdir(folder)
    os.environ.update(environment)
    sys.path[:0] = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    redirect(out, err)
    streams()
    sys.argv = ["-c", *words]
    exec(code, {"__name__": "__main__"})
    return 0


def forked(become: Callable[[Path, Path], int], longest: float, failed: int) -> dict[str, object]:
    """Do something in a child, with the files that it prints into: exit code (None where it hung), what was printed."""
    with tempfile.TemporaryDirectory() as printed:
        out, err = Path(printed, "out"), Path(printed, "err")
        pid = os.fork()
        if pid == 0:
            code = failed
            try:
                os.setsid()
                # torch renews its pool of threads when a fork first wants it, which two threads must not do at once
                torch.set_num_threads(torch.get_num_threads())
                code = become(out, err)
            except SystemExit as error:
                code = int(error.code or 0)
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        end, status = time.monotonic() + longest, None
        while time.monotonic() < end:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                break
            time.sleep(0.005)
        else:
            status = None
            os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        text = [base64.b64encode(path.read_bytes() if path.is_file() else b"").decode() for path in (out, err)]
    return {"code": None if status is None else os.waitstatus_to_exitcode(status), "out": text[0], "err": text[1]}


def run(trial: Trial, folder: Path, template: Path) -> dict[str, object]:
    """Run a trial in a folder that holds a copy of the finished sweep; what was printed comes back."""
    shutil.copytree(template, folder, symlinks=True)
    if trial.before is not None:
        trial.before(folder)
    given = seen(folder)
    answer = forked(lambda out, err: child(trial, folder, out, err), LONGEST, 70)
    return {**answer, "given": [name for name, _ in given & seen(folder)]}


def seen(folder: Path) -> set[tuple[str, tuple[int, int]]]:
    """The files below a folder, with what changes when they are written."""
    found = set()
    for path in folder.rglob("*"):
        told = path.lstat()
        found.add((str(path.relative_to(folder)), (told.st_mtime_ns, told.st_ino)))
    return found


def main() -> None:
    """Draw the sweep, then take orders."""
    torch.set_num_threads(1)
    place = Path(tempfile.mkdtemp())
    template = place / "template"
    template.mkdir()
    # every child has this model already, because it is remembered by its files
    models.load(str(MODEL), device="cpu")
    words = ("-m", "operators=[interpolate]", "operators.interpolate.toward=cat", "operators.interpolate.weight=0.5,1")
    drawing = Trial("sweep", (*words, "tracker=disk", "hydra.sweep.dir=sweep"))
    made = run(drawing, place / "made", template)
    if made["code"] != 0:
        raise SystemExit(base64.b64decode(str(made["err"])).decode())
    for path in (place / "made").rglob("*.json"):
        path.write_text(path.read_text("utf-8").replace(str(place / "made"), "."), "utf-8")
    Plugins.instance()
    gc.freeze()  # a collection in a child would copy the pages of all that was imported
    print("ready", flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        if "code" in order:
            print(json.dumps(forked(partial(program, **order), 600, 1)), flush=True)
            continue
        trial = TABLE[order["number"]] if "number" in order else Trial("generated", tuple(order["words"]))
        print(json.dumps(run(trial, Path(order["folder"]), place / "made")), flush=True)
    shutil.rmtree(place)


if __name__ == "__main__":
    main()
