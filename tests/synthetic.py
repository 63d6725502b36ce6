"""Sweeps as embedlab writes them, without drawing anything: for looking at, a few jobs or two thousand."""

import itertools
import json
import os
import random
from pathlib import Path

from PIL import Image

WORDS = ["puppy", "skunk", "dog", "owl", "cat", "penguin", "view", "front", "warm", "its"]


def picture(path: Path, number: int, side: int) -> Path:
    """A PNG of about the size that the default model's pictures have, each number its own."""
    chance = random.Random(number)
    small = Image.frombytes("RGB", (9, 9), chance.randbytes(243)).resize((side, side), Image.Resampling.BICUBIC)
    grain = Image.frombytes("RGB", (side, side), bytes(b & 3 for b in chance.randbytes(side * side * 3)))
    Image.blend(small, grain, 0.02).save(path)
    return path


def token(row: int, piece: str, role: str, chance: random.Random, edited: bool) -> dict:
    near = chance.sample(WORDS, 3)
    norm = round(chance.uniform(0.9, 1.5), 4)
    return {
        **{"encoder": 0, "row": row, "window": 0, "place": row, "role": role, "id": 300 + row, "piece": piece},
        **{"kept": round(chance.random(), 4) if edited else 1.0, "norm": norm},
        **{"norm_after": round(norm * 0.8, 4) if edited else norm, "moved": 0.0, "near": near},
        "near_after": chance.sample(WORDS, 3) if edited else near,
    }


def explanation(prompt: str, edit: str, chance: random.Random) -> dict:
    words = prompt.split()[:9]
    same = random.Random(repr(prompt))
    tokens = [token(0, "<|startoftext|>", "bos", same, False)]
    tokens += [
        token(n + 1, word, "words", same if n + 1 < len(words) else chance, n + 1 == len(words))
        for n, word in enumerate(words)
    ]
    tokens.append(token(len(words) + 1, "<|endoftext|>", "eos", same, False))
    names = ("mean", "std", "mean_after", "std_after")
    layers = [{"encoder": 0, "layer": n, **{k: round(chance.gauss(0, 1), 5) for k in names}} for n in range(5)]
    side = {"text": prompt, "tokens": len(words), "windows": 1, "rows": 77}
    return {
        **{"prompt": prompt, "edit": edit, "tokens": tokens, "layers": layers, "positive": side},
        **{"negative": {**side, "text": "", "tokens": 0}, "hidden": [0.0027, 1.004, 0.0029, 1.006]},
        **{"shifts": {"words": round(chance.random(), 5), "bos": 0.0, "eos": round(chance.random(), 5)}, "notes": []},
    }


def result(job: int, overrides: dict, seeds: list[int], prompt: str = "A picture of a puppy") -> dict:
    """What a finished job writes."""
    chance = random.Random(job)
    weight = overrides.get("operators.interpolate.weight", chance.random())
    toward = overrides.get("operators.interpolate.toward", "skunk")
    label = f"puppy → {weight} {toward}"
    name = ",".join(f"{k}={json.dumps(v).replace(' ', '')}" for k, v in overrides.items())
    rows = []
    for seed in seeds:
        here = random.Random(seed * 1000 + job).gauss(0, 4)
        row = {"seed": seed, "clip_score/prompt": 75 - 60 * weight + here, "clip_score/puppy": 75 - 60 * weight + here}
        row |= {f"clip_score/{toward}": 12 + 66 * weight - here, "change/cosine": 1 - weight + here / 100}
        row |= {"change/ssim": 1 - weight / 2 + here / 90, "change/pixels": weight / 4, "change/latents": weight * 1.2}
        row |= {"closest": "puppy" if weight < 0.6 else toward}
        rows.append({**row, "file": f"seed-{seed}.png", "baseline": f"baseline-seed-{seed}.png"})
    config = {
        "prompt": prompt,
        "seeds": seeds,
        "size": None,
        "sampler": {"_target_": "embedlab.sampler.Sampler", "name": "ddim", "steps": 25},
    }
    config |= {
        "operators": {
            "interpolate": {
                "_target_": "embedlab.operators.Interpolate",
                "rows": "puppy",
                "toward": toward,
                "weight": weight,
            }
        }
    }
    config |= {f"part_{n}": {"_target_": "embedlab.part", "first": n, "second": None} for n in range(8)}
    return {
        **{
            "format": 1,
            "status": "done",
            "key": f"{chance.getrandbits(64):016x}",
            "job": job,
            "name": name,
            "label": label,
        },
        **{
            "overrides": overrides,
            "command": f"embedlab 'operators=[interpolate]' {name.replace(',', ' ')} 'seeds={seeds}'",
        },
        **{"prompt": prompt, "notes": [], "explain": explanation(prompt, label, chance), "schedule": []},
        "scores": {k: sum(r[k] for r in rows) / len(rows) for k in (rows or [{}])[0] if isinstance(rows[0][k], float)}
        | {"rows/edited": 1.0},
        **{
            "pictures": rows,
            "config": config,
            "versions": {"embedlab": "0.1.0", "torch": "2.13.0", "python": "3.11.9"},
        },
    }


def put(folder: Path, result: dict, files: dict[str, Path] | None = None, side: int = 128) -> Path:
    """A job's folder: its pictures, then its result."""
    folder.mkdir(parents=True, exist_ok=True)
    for n, row in enumerate(result.get("pictures", [])):
        for kind in ("file", "baseline"):
            if row.get(kind):
                path = folder / row[kind]
                if files:
                    path.hardlink_to(files[list(files)[(n + result.get("job", 0) * 7) % len(files)]])
                else:
                    picture(path, n + 100 * result.get("job", 0) + (kind == "baseline") * 7, side)
    temporary = folder / ".result.json"
    temporary.write_text(json.dumps(result))
    os.replace(temporary, folder / "result.json")
    return folder


def sweep(folder: Path, axes: dict[str, list], seeds: list[int], shared: int = 0, **settings) -> Path:
    """A finished sweep over the product of some settings; with `shared`, so many pictures serve all its cells."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    if shared:
        (folder.parent / "pool").mkdir(exist_ok=True)
        files = {str(n): picture(folder.parent / "pool" / f"{n}.png", n, 128) for n in range(shared)}
    for job, values in enumerate(itertools.product(*axes.values())):
        overrides = {"operators": ["interpolate"], **dict(zip(axes, values, strict=True))}
        put(folder / str(job), result(job, overrides, seeds, **settings), files)
    return folder


def plan(folder: Path, jobs: list[dict]) -> None:
    """The list of a sweep's jobs, done or to come."""
    held = [{"job": n, "folder": str(n), "overrides": overrides} for n, overrides in enumerate(jobs)]
    command = ["embedlab", "-m", "operators=[interpolate]"]
    (folder / "sweep.json").write_text(
        json.dumps({"format": 1, "command": command, "started": "2026-01-01T00:00:00", "jobs": held})
    )
