"""What do operators cost? 1,000 applications to a prompt of three windows, in calls of its text encoder.

    python benchmarks/operators.py [rounds]

Both arms run interleaved in one process: 1,000 applications of an operator (after a first one, which finds rows and
tokenizes words once and for all), and calls of the default model's text encoder on the three windows. A line for each
operator: how many of those calls the 1,000 applications cost (median; middle half).
"""

import statistics
import sys
import time

import torch

import embedlab as lab
from embedlab.embeddings import lookup_of
from embedlab.operators import Operator

WORDS = "a cat above a dog, and a red star on a green ground, with an owl beside it, "
ALL = {"role": "all"}
APPLICATIONS, CALLS = 1000, 10


def before(dim: int) -> list[Operator]:
    """Every operator of rows before the encoder."""
    words = {"role": "words"}
    vector = torch.randn(dim)
    return [
        lab.Replace("cat", "owl"),
        lab.Interpolate("cat", "owl", 0.5),
        lab.Interpolate(words, vector, 0.5, path="slerp"),
        lab.Interpolate("cat", ["owl", "dog"], [0.3, 0.3]),
        lab.Add(words, {"owl": 1, "dog": -1}),
        lab.Subtract(words, "owl"),
        lab.ProjectOut(words, "owl"),
        lab.Scale(words, 1.5),
        lab.Normalise(words),
        lab.Average(words),
        lab.Drop("cat"),
        lab.Noise(ALL, 0.5),
        lab.Rotate(ALL, 30),
        lab.Shuffle(words),
        lab.Reverse(words),
        lab.Swap({"word": "cat", "nth": 1}, {"word": "dog", "nth": 1}),
        lab.Shift("cat", 2),
        lab.Place("cat", 3),
        lab.Freeze(ALL),
        lab.Stretch(),
    ]


def after() -> list[Operator]:
    """Every kind of operator after the encoder."""
    words = {"role": "words"}
    return [
        lab.Replace("cat", {"prompt": "an owl", "rows": "owl"}, "hidden"),
        lab.Interpolate({"role": "eos"}, "an owl", 0.5, "hidden", lengths="repeat"),
        lab.Add(words, "an owl", 1, "hidden"),
        lab.Scale({"role": "pad"}, 0, "hidden"),
        lab.Noise(ALL, 0.5, stage="conditioning"),
        lab.Blend("an owl", 0.5),
        lab.Concatenate("an owl"),
        lab.Truncate(100),
    ]


@torch.inference_mode()
def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    model = lab.load("emoji")
    tower = model.towers[0]
    text = WORDS * 9
    rows, lookup = lab.embed(text, tower), lookup_of(tower)
    assert len(rows.tokens.ids) == 3
    texts = lab.texts_of(model.towers)
    told = texts(text)
    arms = [(operator, rows, lookup) for operator in before(tower.width)] + [(o, told, texts) for o in after()]
    print(f"1,000 applications, in calls of the text encoder on {len(rows.tokens.ids)} windows; {rounds} rounds")
    worst = 0.0
    for operator, value, source in arms:
        operator(value, source)
        ratios = []
        for _ in range(rounds):
            start = time.perf_counter()
            for _ in range(APPLICATIONS):
                operator(value, source)
            middle = time.perf_counter()
            for _ in range(CALLS):
                lab.encode([(rows,)], model.towers)
            ratios.append((middle - start) / (time.perf_counter() - middle) * CALLS)
        low, median, high = statistics.quantiles(ratios, n=4)
        worst = max(worst, median)
        print(f"{median:7.1f}  ({low:.1f} to {high:.1f})  {type(operator).__name__}: {operator}"[:110])
    print(f"{worst:7.1f}  the dearest")


if __name__ == "__main__":
    main()
