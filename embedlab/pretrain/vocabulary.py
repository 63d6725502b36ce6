"""The vocabulary of CLIP, as files of a tokenizer."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import zipfile
from pathlib import Path

from transformers import CLIPTokenizer

from embedlab.files import write


def tokenizer(folder: Path) -> CLIPTokenizer:
    """OpenAI's CLIP vocabulary: 256 bytes, the same at a word's end, 48,894 merges, start and end of text.

    The list of merges is read from the `clip-anytorch` wheel in `folder` (MIT), downloaded with pip when it is missing.
    """
    target = folder / "tokenizer"
    if not (target / "merges.txt").exists():
        if not list(folder.glob("clip_anytorch*.whl")):
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "clip-anytorch==2.6.0"]
            subprocess.run([*pip, "-d", str(folder)], check=True)
        with zipfile.ZipFile(next(folder.glob("clip_anytorch*.whl"))) as wheel:
            lines = gzip.decompress(wheel.read("clip/bpe_simple_vocab_16e6.txt.gz")).decode().split("\n")
        merges = lines[1 : 49152 - 256 - 2 + 1]
        printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
        others = [b for b in range(256) if b not in printable]
        letters = [chr(b) for b in printable] + [chr(256 + i) for i in range(len(others))]
        pieces = letters + [x + "</w>" for x in letters] + ["".join(m.split()) for m in merges]
        vocab = {piece: i for i, piece in enumerate([*pieces, "<|startoftext|>", "<|endoftext|>"])}
        target.mkdir(parents=True, exist_ok=True)
        (target / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False))
        write(target / "merges.txt", ("#version: 0.2\n" + "\n".join(merges) + "\n").encode())
    return CLIPTokenizer.from_pretrained(target, model_max_length=77)
