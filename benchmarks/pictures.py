"""Hashes of the pictures of every study: what shows that a change of the code changed no picture by one bit.

    python benchmarks/pictures.py before.json                      # run the studies, write the hashes
    python benchmarks/pictures.py after.json --against before.json # the same again; what differs is told, exit code 1
    python benchmarks/pictures.py one.json --studies demo layers

One thread and 16 pictures at once, because a picture's last bits depend on both; compare on one machine. Hashed are
pixels, not files: what a picture says of itself may change. Studies that are in the file already are not run again.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parent.parent
STUDIES = sorted(path.stem for path in (ROOT / "conf" / "experiment").glob("*.yaml"))


def hashes(study: str) -> dict[str, str]:
    """Run a study; a hash of the pixels of each of its pictures, by the picture's path in its folder."""
    with tempfile.TemporaryDirectory() as folder:
        words = [f"experiment={study}", "tracker=silent", "at_once=16"]
        words += [f"hydra.sweep.dir={folder}", f"hydra.run.dir={folder}"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "EMBEDLAB_CACHE": f"{folder}/.cache"}
        subprocess.run(
            [sys.executable, "-m", "embedlab", *words],
            check=True,
            cwd=ROOT,
            env=environment,
            stdout=subprocess.DEVNULL,
        )
        found = {}
        for file in sorted(Path(folder).rglob("*seed-*.png")):
            with Image.open(file) as picture:
                found[str(file.relative_to(folder))] = hashlib.sha256(picture.tobytes()).hexdigest()[:16]
    return found


def main() -> None:
    """Run what was asked for and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--against", type=Path)
    parser.add_argument("--studies", nargs="*", default=STUDIES, choices=STUDIES)
    words = parser.parse_args()
    found = json.loads(words.file.read_text(encoding="utf-8")) if words.file.is_file() else {}
    for study in words.studies:
        if study not in found:
            found[study] = hashes(study)
            words.file.write_text(json.dumps(found, indent=1), encoding="utf-8")
            print(f"{study}: {len(found[study])} pictures", flush=True)
    if words.against:
        before = json.loads(words.against.read_text(encoding="utf-8"))
        other = [
            f"{study}/{name}"
            for study in words.studies
            for name in sorted(found[study].keys() | before[study].keys())
            if found[study].get(name) != before[study].get(name)
        ]
        print(f"{sum(len(found[study]) for study in words.studies)} pictures, {len(other)} differ: {' '.join(other)}")
        sys.exit(bool(other))


if __name__ == "__main__":
    main()
