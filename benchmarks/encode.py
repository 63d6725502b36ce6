"""Weighted prompts through text encoders, ours against compel, in one process by turns; and how fast prompts are read.

    python benchmarks/encode.py [ROUNDS] [--prompts 32] [--encoder clip-l emoji] [--at-once 8] [--large]

Prompts have one to three windows in equal parts, in compel's language; phrases are weighted above 1 in all, and below 1
in a third. Both arms parse, tokenize, encode and weigh, with compel's numbers, which are compared first (1e-5). For
CLIP-L's architecture with random weights 2.2 or more times compel's throughput are wanted, for the default model's
encoder 4; beside, what is asked for again is answered from memory. `--large` takes 256 prompts.

Then 10,000 prompts of one window, parsed and tokenized in each language: under 1 ms each is wanted, and as long for
each of 10,000 as for each of 1,000.
"""

import argparse
import random
import time
from collections.abc import Sequence

import torch
from compel import Compel
from paired import machine, ratio, rounds
from transformers import CLIPTextConfig, CLIPTextModel

from embedlab import models
from embedlab.clip import Tower
from embedlab.language import LANGUAGES, fragments, parse
from embedlab.memo import Memo
from embedlab.weighting import encoder_of, weigh
from embedlab.weighting.reading import Known
from embedlab.windows import Windows, windows_of

LENGTHS = (55, 125, 200)  # tokens, in one, two and three windows
WANTED = {"clip-l": 2.2, "emoji": 4.0}
THINGS = [
    "puppy",
    "fox",
    "bear",
    "owl",
    "penguin",
    "whale",
    "bee",
    "tree",
    "car",
    "boat",
    "castle",
    "bell",
    "book",
    "hat",
]
COLOURS = ["red", "orange", "yellow", "green", "blue", "purple", "pink"]


def phrases(count: int, chance: random.Random) -> list[str]:
    """So many things in their colours, of which a few are weighted above 1; each has four tokens or five."""
    found = [f"a {chance.choice(COLOURS)} {chance.choice(THINGS)}" for _ in range(count)]
    for n in chance.sample(range(count), 1 + count // 6):
        found[n] = f"({found[n]}){chance.choice([1.1, 1.2, 1.5])}"
    return found


def prompts_of(count: int, seed: int = 0) -> list[str]:
    """Prompts of one to three windows; in every third a phrase or two are weighted below 1."""
    chance = random.Random(seed)
    found = []
    for k in range(count):
        words = phrases(LENGTHS[k // 3 % 3] // 4, chance)
        for n in chance.sample(range(len(words)), chance.choice([1, 2])) if k % 3 == 0 else ():
            words[n] = f"({words[n].split(')')[0].lstrip('(')}){chance.choice([0.3, 0.5, 0.7, 0.9])}"
        found.append(", ".join(words))
    return found


def windows(prompts: Sequence[str], tower: Tower) -> list[Windows]:
    """Prompts in compel's language, cut as compel does."""
    return [windows_of(fragments(parse(text, "compel")), tower.tokenizer, "sentence") for text in prompts]


@torch.inference_mode()
def ours(prompts: Sequence[str], tower: Tower, at_once: int, known: Known | None = None) -> list[torch.Tensor]:
    """Hidden states of prompts, weighed as compel does."""
    encode = encoder_of(tower, at_once=at_once, known=Memo(64) if known is None else known)
    found = []
    for begin in range(0, len(prompts), 32):  # what they are made of need not all be held
        made = weigh(windows(prompts[begin : begin + 32], tower), encode, "compel", pooled="first")
        found += [one.hidden.flatten(0, 1) for one in made]
    return found


@torch.inference_mode()
def theirs(prompts: Sequence[str], compel: Compel) -> list[torch.Tensor]:
    """The same by compel, one prompt after the other, as it does for a list of them."""
    return [compel.build_conditioning_tensor(text)[0] for text in prompts]


def clip_l() -> Tower:
    """CLIP-L's text encoder as SD 1 has it, with random weights: 123 million."""
    torch.manual_seed(0)
    config = CLIPTextConfig(
        hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, vocab_size=49408
    )
    return Tower(models.tokenizer(), CLIPTextModel(config).eval().requires_grad_(False))


def encoding(name: str, prompts: Sequence[str], count: int, at_once: Sequence[int]) -> None:
    """Both arms on one text encoder."""
    tower = clip_l() if name == "clip-l" else models.load("emoji", device="cpu").towers[0]
    compel = Compel(tower.tokenizer, tower.encoder, truncate_long_prompts=False)
    far = max(
        float((a - b).abs().max())
        for a, b in zip(ours(prompts, tower, at_once[0]), theirs(prompts, compel), strict=True)
    )
    print(f"\n{name}: {len(prompts)} prompts; numbers at most {far:.0e} from compel's")
    arms = {"compel": lambda: theirs(prompts, compel)}
    arms |= {f"ours, {n} at once": lambda n=n: ours(prompts, tower, n) for n in at_once}
    known: Known = Memo(4096)
    arms["ours, asked again"] = lambda: ours(prompts, tower, at_once[0], known)
    found = rounds(arms, count)
    for arm in list(arms)[1:]:
        rate = len(prompts) / min(one.seconds for one in found[arm])
        wanted = f"; {WANTED[name]} or more wanted" if "at once" in arm else ""
        print(f"  compel / {arm:18s}{ratio(found['compel'], found[arm])}; {rate:.1f} prompts a second{wanted}")


def reading(count: int) -> None:
    """How long prompts of one window take to be parsed and tokenized."""
    tokenizer = models.tokenizer()
    written = {"plain": "{}", "a1111": "({}:{})", "compel": "({}){}", "comfyui": "({}:{})"}
    for language in LANGUAGES:
        for many in (count // 10, count):
            chance = random.Random(many)
            texts = []
            for _ in range(many):
                words = [f"a {chance.choice(COLOURS)} {chance.choice(THINGS)}" for _ in range(chance.randint(2, 15))]
                words[-1] = written[language].format(words[-1], chance.choice([0.5, 1.2]))
                texts.append(", ".join(words))
            begun = time.process_time()
            for text in texts:
                windows_of(fragments(parse(text, language)), tokenizer)
            each = (time.process_time() - begun) / many
            print(f"  {language:8s} {many:6d} prompts, {each * 1000:.3f} ms of the processor each")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rounds", type=int, nargs="?", default=5)
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--encoder", nargs="*", default=list(WANTED), choices=WANTED)
    parser.add_argument("--at-once", type=int, nargs="+", default=[8])
    parser.add_argument("--large", action="store_true")
    given = parser.parse_args()
    print(machine())
    for name in given.encoder:
        encoding(name, prompts_of(256 if given.large else given.prompts), given.rounds, given.at_once)
    print("\nparsed and tokenized, prompts of 8 to 60 tokens:")
    reading(10_000)
    print(machine())


if __name__ == "__main__":
    main()
