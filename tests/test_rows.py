"""As few rows as it takes: equal ones are run once, and nobody can see it in the pictures."""

import csv
from dataclasses import replace

import pytest
import torch

from embedlab import (
    Attention,
    Cell,
    During,
    Guidance,
    Interpolate,
    Job,
    Replace,
    Sampler,
    Source,
    Store,
    models,
    render,
    run_jobs,
)
from embedlab.attention import CopyCross, CopySelf, Reweight
from embedlab.attention.watch import Reading
from embedlab.cli.progress import Display
from embedlab.condition import condition_calls
from embedlab.guidance import Carried, Predictions, Shared, guided, rows_of_call
from embedlab.guidance.remembered import Known
from embedlab.rendering import sample_batch
from embedlab.samples import Request
from embedlab.scheduler_options import NEEDS, SCHEDULERS
from embedlab.sweep.observer import Observer
from embedlab.sweep.tables import write_times
from embedlab.timing import Spent, Timer, Times

PROMPT = "A picture of a puppy"
STEPS = 4


class OneByOne:
    """A UNet that is asked for its rows one by one, so that no kernel rounds by how many there are."""

    engine = None

    def __init__(self, unet):
        self.unet, self.sizes = unet, []

    def __getattr__(self, name):
        return getattr(self.unet, name)

    def __call__(self, x, t, **told):
        self.sizes.append(len(x))
        return (
            torch.cat(
                [self.unet(x[n : n + 1], t, **rows_of_call(told, torch.tensor([n]), len(x)))[0] for n in range(len(x))]
            ),
        )


@pytest.fixture
def one_by_one(sd1) -> models.Model:
    return replace(sd1, unet=OneByOne(sd1.unet))


def late(to: str, begin: float = 0.5, **settings) -> Cell:
    """An edit that departs in the middle."""
    sampler = settings.pop("sampler", Sampler("ddim", STEPS))
    return Cell(PROMPT, [During(Replace("puppy", to), begin=begin)], sampler=sampler, **settings)


def requests_of(model, cells, seeds=(0, 1)):
    return [Request(calls, seed) for seed in seeds for calls in condition_calls(model, cells)]


@pytest.mark.turns
@pytest.mark.parametrize("scheduler", [name for name, (kind, _) in SCHEDULERS.items() if kind not in NEEDS])
def test_steps_before_an_edit_departs_are_run_once_to_the_bit(one_by_one, scheduler):
    sampler = Sampler(scheduler, STEPS)
    cells = [late("cat", sampler=sampler).baseline(), late("cat", 0.25, sampler=sampler), late("owl", sampler=sampler)]
    requests, timer = requests_of(one_by_one, cells), Timer()
    alone = sample_batch(one_by_one, requests, shared=Shared(range(6)))
    assert not any(one.rows for one in alone)
    one_by_one.unet.sizes.clear()
    with timer:
        shared = sample_batch(one_by_one, requests, timer=timer)
    assert all(torch.equal(a.latents, b.latents) for a, b in zip(alone, shared, strict=True))
    assert not torch.equal(shared[0].latents, shared[1].latents)
    sizes, asked = one_by_one.unet.sizes, 12 * len(one_by_one.unet.sizes)
    # both halves of two seeds; then cat departs, then owl: latents of three pictures a seed
    assert (sizes, sizes[0], sizes[-1]) == (sorted(sizes), 4, 12)
    assert (timer.spent("UNet").rows, timer.spent("UNet").asked) == (sum(sizes), asked)
    assert sum(calls for calls, _, _ in shared[0].rows) == len(sizes)


def test_each_row_of_a_study_of_late_edits_is_counted(one_by_one):
    cells = [late("cat").baseline(), *(late(to) for to in ("cat", "owl", "fox"))]
    samples = sample_batch(one_by_one, requests_of(one_by_one, cells))
    # two steps of both halves of two seeds; at the third they hold the same latents, and are told four things; then not
    assert one_by_one.unet.sizes == [4, 4, 2 + 8, 8 + 8]
    assert samples[1].rows == ((2, 4, (0, 2)), (1, 10, (0, 3)), (1, 16, (1, 9)))


def test_a_cell_that_is_asked_for_twice_takes_no_more_rows_and_comes_out_the_same(sd1):
    cell, timer = Cell(PROMPT, sampler=Sampler("ddim", STEPS)), Timer()
    with timer:
        first, again = sample_batch(sd1, requests_of(sd1, [cell, cell], seeds=[0]), timer=timer)
    (alone,) = sample_batch(sd1, requests_of(sd1, [cell], seeds=[0]))
    assert torch.equal(first.latents, again.latents)
    assert torch.equal(first.latents, alone.latents)
    assert (timer.spent("UNet").rows, timer.spent("UNet").asked) == (2 * STEPS, 4 * STEPS)


def test_a_source_of_attention_is_drawn_once_for_those_of_a_seed_that_copy_from_it(sd1):
    def copied(to, source=None):
        attention = Attention(edits=[CopyCross(), CopySelf()], source=source)
        return Cell(PROMPT, [Replace("puppy", to)], sampler=Sampler("ddim", STEPS), attention=attention)

    requests, timer = requests_of(sd1, [copied("cat"), copied("owl"), copied("fox", "a skunk in grass")]), Timer()
    with timer:
        shared = sample_batch(sd1, requests, timer=timer)
    # six pictures, of each seed one source of two of them and one of the third, with both halves, of which the one
    # without a prompt is the same for all five of a seed in the first step; asked: six sources
    assert (timer.spent("UNet").rows, timer.spent("UNet").asked) == ((6 + 4) * 2 * STEPS - 8, (6 + 6) * 2 * STEPS)
    assert [one.batch for one in shared] == [(n, 6, which, 4) for n, which in enumerate((0, 0, 1, 2, 2, 3))]
    alone = sample_batch(sd1, requests, sources=range(6))
    assert [one.batch for one in alone] == [(n, 6) for n in range(6)]
    for one, other in zip(shared, alone, strict=True):
        torch.testing.assert_close(one.latents, other.latents, atol=1e-4, rtol=0)


@pytest.fixture
def watched_by_pairs(monkeypatch) -> list[int]:
    """A watched UNet is asked for its rows one by one, each beside the row that it copies from: the sizes of calls."""
    sizes = []

    def call(self, x, t, **told):
        sizes.append(len(x))
        out = []
        for n, same in enumerate(self.rows):
            picture, _ = same[0]
            source = self.watch.sources.get(picture)
            beside = next((k for k, other in enumerate(self.rows) if (source, 0) in other), n)
            self.watch.rows = [same, [] if beside == n else self.rows[beside]]
            rows = torch.tensor([n, beside])
            out.append(self.unet(x[rows], t, **rows_of_call(told, rows, len(x)))[0][:1])
        self.watch.rows = []
        return (torch.cat(out),)

    monkeypatch.setattr(Reading, "__call__", call)
    return sizes


@pytest.mark.parametrize("guidance", [Guidance(4.0), Guidance(4.0, guider="apg", interval=(0.0, 0.5))], ids=str)
def test_watched_rows_that_are_equal_are_run_once_to_the_bit_of_pictures_and_maps(sd1, watched_by_pairs, guidance):
    maps = Attention(maps=True, by=["step"])
    first = late("cat", attention=maps, guidance=guidance)
    cells = [first.baseline(), first, late("owl", attention=replace(maps, words=["of", "puppy"]), guidance=guidance)]
    requests = requests_of(sd1, cells)
    alone = sample_batch(sd1, requests, shared=Shared(range(6)))
    watched_by_pairs.clear()
    together = sample_batch(sd1, requests)
    for one, other in zip(alone, together, strict=True):
        assert torch.equal(one.latents, other.latents)
        assert one.maps.words == other.maps.words
        assert torch.equal(one.maps.heat, other.maps.heat)
        assert torch.equal(one.maps.parts, other.maps.parts)
    assert together[2].maps.words == ("of", "puppy")
    assert not torch.equal(together[0].maps.heat, together[1].maps.heat)
    # both halves of two seeds; the edits depart; then all have latents of their own
    assert watched_by_pairs == ([4, 4, 2 + 6, 12] if guidance.interval is None else [4, 4, 6, 6])


@pytest.mark.parametrize("edits", [[Reweight("of", 3)], [CopyCross(), CopySelf()]], ids=["reweight", "copy"])
def test_edits_of_attention_that_do_the_same_are_done_once_to_the_bit(sd1, watched_by_pairs, edits):
    cells = [late(to, attention=Attention(edits=edits)) for to in ("cat", "owl")]
    requests, beside = requests_of(sd1, cells), 2 if edits[0].copies else 0
    alone = sample_batch(sd1, requests, shared=Shared(range(4 + beside)))
    watched_by_pairs.clear()
    together = sample_batch(sd1, requests)
    assert all(torch.equal(a.latents, b.latents) for a, b in zip(alone, together, strict=True))
    assert not torch.equal(together[0].latents, together[1].latents)
    # of each seed both halves of what the two pictures are until they depart; their source, which they copy whole, is
    # the same until then, but has a row of its own with the prompt, as nothing is done to its attention
    assert watched_by_pairs == ([6, 6, 8, 12] if beside else [4, 4, 6, 8])


def test_an_edit_of_attention_parts_pictures_that_read_the_same(sd1, watched_by_pairs):
    plain, heavy = (
        Cell(PROMPT, sampler=Sampler("ddim", STEPS), attention=Attention(edits=[During(Reweight(rows, by), begin=b)]))
        for rows, by, b in (("of", 3, 0.5), ("puppy", 3, 0.75))
    )
    requests = [Request(calls, 0) for calls in condition_calls(sd1, [plain, heavy])]
    first, second = sample_batch(sd1, requests)
    assert not torch.equal(first.latents, second.latents)
    # the UNet is told the same throughout: what is done to attention tells them apart, until their latents do
    assert watched_by_pairs == [2, 2, 3, 4]


def test_pictures_of_other_scales_share_both_halves_while_their_latents_are_equal(one_by_one):
    cells = [Cell(PROMPT, guidance=Guidance(scale), sampler=Sampler("ddim", STEPS)) for scale in (2, 4, 8)]
    requests = requests_of(one_by_one, cells, seeds=[0])
    alone = sample_batch(one_by_one, requests, shared=Shared(range(3)))
    one_by_one.unet.sizes.clear()
    shared = sample_batch(one_by_one, requests)
    assert one_by_one.unet.sizes == [2, *[6] * (STEPS - 1)]
    assert all(torch.equal(a.latents, b.latents) for a, b in zip(alone, shared, strict=True))


def test_sharing_rounds_and_does_no_more(model):
    cells = [
        Cell("a puppy", [During(Interpolate("puppy", "cat", w), begin=0.5)], sampler=Sampler("ddim", STEPS))
        for w in (0.5, 1)
    ]
    requests = requests_of(model, cells)
    for one, other in zip(
        sample_batch(model, requests, shared=Shared(range(4))), sample_batch(model, requests), strict=True
    ):
        torch.testing.assert_close(one.latents, other.latents, atol=1e-4, rtol=0)


def test_other_seeds_share_nothing_and_are_not_compared(sd1, monkeypatch):
    monkeypatch.setattr(Shared, "_part", lambda *_: pytest.fail("they cannot be equal"))
    samples = sample_batch(sd1, requests_of(sd1, [Cell(PROMPT, sampler=Sampler("ddim", STEPS))]))
    assert [one.rows for one in samples] == [(), ()]


def test_what_parts_is_known_by_value_and_branches_stay_together():
    x = torch.zeros(5, 1, 2, 2, dtype=torch.bfloat16)
    shared = Shared([0] * 5)
    assert shared.rows(x, range(5), [""] * 5) == ([0], [0] * 5)
    x[[1, 3]] = 1
    assert shared.rows(x, range(5), [""] * 5) == ([0, 1], [0, 1, 0, 1, 0])
    x[3], x[4] = 0, float("nan")  # what parted does not meet again
    assert shared.rows(x, range(5), [""] * 5) == ([0, 1, 3, 4], [0, 1, 0, 2, 3])


def test_a_unet_that_gets_ready_for_each_number_of_rows_sees_few_of_them():
    shared, x = Shared([0] * 17, by_shape=True), torch.zeros(34, 1, 2, 2)
    images = [*range(17)] * 2
    assert len(shared.rows(x, images, [""] * 17 + ["cat"] * 17)[0]) == 2
    run, back = shared.rows(x, images, [""] * 17 + list(map(str, range(17))))
    assert (len(run), max(back)) == (32, 17), "18 are needed"
    x[:17] = x[17:] = torch.arange(17.0).view(-1, 1, 1, 1)
    run, back = shared.rows(x, images, [""] * 17 + ["cat"] * 17)
    assert run == back == list(range(34)), "no more than are asked for"


def test_where_gradients_are_asked_for_each_image_has_its_own(sd1):
    (told,) = condition_calls(sd1, [Cell(PROMPT, sampler=Sampler("ddim", 1))])
    timer = Timer()
    denoise = guided(sd1.unet, [told[0].cond] * 2, [told[0].uncond] * 2, [4.0] * 2, timer=timer, shared=Shared([0, 0]))
    x = torch.ones(2, 4, 8, 8, requires_grad=True)
    with timer:
        denoise(x, torch.tensor(500))[1].sum().backward()
    assert [bool(mine.any()) for mine in x.grad] == [False, True]
    assert timer.spent("UNet").rows == 4


@pytest.fixture
def source(folders):
    return Source(str(folders["sd1"]), device="cpu")


def jobs_of(source, folder, cells, seeds=(0, 1), **settings):
    return [Job(source, cell, seeds, folder / str(n), number=n, **settings) for n, cell in enumerate(cells)]


class Sizes(Observer):
    def __init__(self):
        self.batches = []

    def on_batch(self, pictures, rows, seconds):
        self.batches.append((pictures, rows))


def test_pictures_of_a_seed_that_begin_alike_come_into_one_batch(source, tmp_path):
    seen = Sizes()
    jobs = jobs_of(source, tmp_path, [late(to) for to in ("cat", "owl", "fox")], at_once=4)
    outcome = run_jobs(jobs, Store(tmp_path / "cells"), seen)
    assert not outcome.failures
    assert seen.batches == [(4, 2 + 2 + (1 + 4) + 8)] * 2, "each seed: as written and three edits"
    unet = outcome.times.spent("UNet")
    # three jobs of two seeds, as written and edited, two rows a step; as written is one picture for all
    assert (unet.rows, unet.asked) == (34, 3 * 2 * 2 * 2 * STEPS)


@pytest.mark.parametrize("scheduler", ["ddim", "dpmpp_2m", "euler_ancestral"])
def test_a_prefix_that_batches_share_is_run_by_the_first_to_the_bit(one_by_one, scheduler):
    sampler = Sampler(scheduler, STEPS)
    cells = [late("cat", sampler=sampler).baseline(), *(late(to, sampler=sampler) for to in ("cat", "owl", "fox"))]
    whole = render(one_by_one, cells, [0, 1])
    rows = sum(one_by_one.unet.sizes)
    one_by_one.unet.sizes.clear()
    parts = render(one_by_one, cells, [0, 1], at_once=3)
    assert all(torch.equal(a.latents, b.latents) for a, b in zip(whole, parts, strict=True))
    # of seed 0 three and one, of seed 1 two and two: where their edits depart the row without a prompt is run in both
    assert (rows, sum(one_by_one.unet.sizes)) == (4 + 4 + 10 + 16, 4 + 4 + 10 + 2 + 16)
    assert not any(x == 0 for x in one_by_one.unet.sizes)
    assert parts[3].rows[0][0] == (2, 2, (0, 1)), "the first two calls were those of another batch"


def test_what_is_remembered_of_other_batches_fits_and_other_seeds_and_guiders_have_their_own(one_by_one):
    told = {"guidance": Guidance(4.0, guider="apg", interval=(0.0, 0.5))}
    cells = [late("cat", **told).baseline(), late("cat", **told), late("owl", **told)]
    whole = render(one_by_one, cells, [0, 1])
    parts = render(one_by_one, cells, [0, 1], at_once=2)
    assert all(torch.equal(a.latents, b.latents) for a, b in zip(whole, parts, strict=True))
    memory = Predictions(most=5 * 64)
    for n in range(9):
        memory.put(n, Known(torch.zeros(1, 4, 2, 2), 1, (0,)))
    assert (memory.held, list(memory.known)) == (5 * 64, [4, 5, 6, 7, 8])
    assert memory.get(4) is not None
    memory.put(9, Known(torch.zeros(1, 4, 2, 2), 1, (0,)))
    assert list(memory.known) == [6, 7, 8, 4, 9], "the one that was asked for last goes last"


def test_a_sweeps_batches_share_a_prefix_and_one_that_does_not_change_remembers_nothing(source, tmp_path, monkeypatch):
    seen = Sizes()
    jobs = jobs_of(source, tmp_path / "a", [late(to) for to in ("cat", "owl", "fox")], at_once=3)
    outcome = run_jobs(jobs, Store(tmp_path / "cells"), seen)
    assert not outcome.failures
    assert seen.batches == [(3, 2 + 2 + (1 + 3) + 6), (3, 2 + 2 + 2 + 3 + 6), (2, 0 + 0 + 3 + 4)]
    monkeypatch.setattr(Carried, "recall", lambda *_: pytest.fail("nothing is looked for"))
    plain = [Cell(PROMPT, [Replace("puppy", to)], sampler=Sampler("ddim", 1)) for to in ("cat", "owl")]
    assert not run_jobs(jobs_of(source, tmp_path / "b", plain, at_once=2), Store(tmp_path / "cells")).failures


def test_what_was_asked_for_and_run_is_said_and_written(source, tmp_path, capsys):
    neutral = Cell(PROMPT, [Interpolate("puppy", "cat", 0.0)], sampler=Sampler("ddim", 2))
    display = Display()
    outcome = run_jobs(jobs_of(source, tmp_path, [neutral], seeds=[0]), Store(tmp_path / "cells"), display)
    assert (outcome.times.spent("UNet").rows, outcome.times.spent("UNet").asked) == (4, 8), "a copy takes none"
    display.times += outcome.times
    display.close()
    assert "4 UNet evaluations of 8 asked for in " in capsys.readouterr().out
    write_times(tmp_path, outcome.times)
    with (tmp_path / "times.csv").open() as file:
        (row,) = [row for row in csv.DictReader(file) if row["part"] == "UNet"]
    assert (row["rows"], row["rows_asked"]) == ("4", "8")


def test_rows_that_nobody_shared_are_no_news(capsys):
    display = Display()
    display.on_batch(1, 4, 1.0)
    display.times += Times({"UNet": Spent(1.0, 2, 4, asked=4)})
    display.close()
    assert "4 UNet evaluations in 1.0 s" in capsys.readouterr().out
