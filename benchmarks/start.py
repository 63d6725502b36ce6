"""How soon an answer comes: whole processes of the command line beside bare scripts of diffusers, interleaved.

    python benchmarks/start.py [ROUNDS]

    refused   --help, and mistakes of every command that need no model            1.0 s or less wanted, the slowest
    begun     the first line that says what happens, of explain and of a picture  1.0 s or less wanted
    explain   / `from diffusers import StableDiffusionPipeline`                   0.6 or less wanted
    picture   / a script that imports, loads the shipped folder, draws, saves     1.05 or less wanted

Printed are medians over rounds, of seconds and of the processor's seconds (user and system), which other work on the
machine changes less; seconds want two idle cores. Both pictures are one of 4 steps of the default model, alike in size.
"""

import os
import pty
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from embedlab import Source

IMPORT = "from diffusers import StableDiffusionPipeline"
PICTURE = """
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
pipe = StableDiffusionPipeline.from_pretrained({folder!r}, safety_checker=None)
pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
pipe.set_progress_bar_config(disable=True)
generator = torch.Generator().manual_seed(0)
pipe("A picture of a puppy", num_inference_steps=4, generator=generator).images[0].save("bare.png")
"""
EDIT = ["operators=[replace]", "operators.replace.by=cat"]
REFUSED = {
    "--help": ["--help"],
    "explain --help": ["explain", "--help"],
    "a setting": ["promt=a dog"],
    "an option": ["sampler=eulr"],
    "a word": ["prompt=a", "dog"],
    "a number": ["sampler.steps=abc"],
    "an operator's number": ["operators=[interpolate]", "operators.interpolate.weight=x"],
    "a list without -m": ["seeds=[0],[1]"],
    "explain": ["explain", "foo="],
    "sweep": ["-m", "sampler.steps=1,2", "sampler.steps=3,4"],
    "resume": ["-m", "resume=nowhere"],
    "film": ["film"],
    "film of nothing": ["film", "nowhere"],
    "sheet": ["sheet", "--row"],
    "sheet of nothing": ["sheet", "nowhere"],
    "gallery": ["gallery", "--every", "-1"],
    "gallery of nothing": ["gallery", "nowhere"],
    "replay": ["replay", "nowhere.png"],
    "sync": ["sync", "nowhere"],
}


@dataclass(frozen=True)
class Time:
    """Of a process, in seconds: until it wrote something, until its end, and of the processor."""

    begun: float
    ended: float
    busy: float
    code: int


def timed(*words: str, folder: Path) -> Time:
    """Run Python with these words in a folder, on a terminal of its own."""
    ours, its = pty.openpty()
    start = time.perf_counter()
    pid = os.posix_spawn(
        "/usr/bin/env",
        ["env", f"--chdir={folder}", sys.executable, *words],
        os.environ,
        file_actions=[(os.POSIX_SPAWN_DUP2, its, 1), (os.POSIX_SPAWN_DUP2, its, 2), (os.POSIX_SPAWN_CLOSE, ours)],
    )
    os.close(its)
    begun = 0.0
    try:
        while os.read(ours, 4096):
            begun = begun or time.perf_counter() - start
    except OSError:  # the terminal's other end is closed
        pass
    _, status, used = os.wait4(pid, 0)
    ended = time.perf_counter() - start
    os.close(ours)
    return Time(begun, ended, used.ru_utime + used.ru_stime, os.waitstatus_to_exitcode(status))


def main(rounds: int = 5) -> None:
    source = str(Source("emoji").location)
    found: dict[str, list[Time]] = {}
    for n in range(rounds + 1):  # the first fills the caches of the disk
        folder = Path(tempfile.mkdtemp())
        arms = {
            "import": ["-c", IMPORT],
            "explain": ["-m", "embedlab", "explain", *EDIT],
            "bare": ["-c", PICTURE.format(folder=source)],
            "picture": ["-m", "embedlab", "seeds=[0]", "sampler.steps=4", "tracker=silent", "hydra.run.dir=out"],
        }
        arms |= {f"refused: {name}": ["-m", "embedlab", *words] for name, words in REFUSED.items()}
        for name, words in arms.items():
            one = timed(*words, folder=folder)
            if one.code != (2 if name.startswith("refused") and "help" not in name else 0):
                raise SystemExit(f"{name} ended with code {one.code}")
            if n:
                found.setdefault(name, []).append(one)
        shutil.rmtree(folder)

    def median(name: str, what: str) -> float:
        return statistics.median(getattr(one, what) for one in found[name])

    def ratio(name: str, bare: str, what: str) -> float:
        pairs = zip(found[name], found[bare], strict=True)
        return statistics.median(getattr(a, what) / getattr(b, what) for a, b in pairs)

    for name in found:
        print(f"{name:32} {median(name, 'ended'):6.2f} s, {median(name, 'busy'):6.2f} s of the processor")
    slowest = max((name for name in found if name.startswith("refused")), key=lambda name: median(name, "ended"))
    print(f"\nthe slowest: {slowest}: {median(slowest, 'ended'):.2f} s (1.0 or less wanted)")
    for name in ("explain", "picture"):
        print(f"{name} says what it does after {median(name, 'begun'):.2f} s (1.0 or less wanted)")
    for name, bare, most in (("explain", "import", 0.6), ("picture", "bare", 1.05)):
        said = ", ".join(f"{ratio(name, bare, what):.2f} {of}" for what, of in (("ended", "s"), ("busy", "processor")))
        print(f"{name} / {bare}: {said} ({most} or less wanted)")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
