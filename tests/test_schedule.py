"""Settings that change while a picture is made: which call sees what, and what that costs."""

import dataclasses
import re
from itertools import pairwise

import pytest
import torch
from turns import mine

from embedlab import (
    Add,
    Alternate,
    Average,
    Blend,
    Cell,
    Concatenate,
    Drop,
    During,
    Encoder,
    Freeze,
    Guidance,
    Interpolate,
    Job,
    Moment,
    Noise,
    Normalise,
    Permute,
    Place,
    ProjectOut,
    Ramp,
    Replace,
    Reverse,
    Rotate,
    Sampler,
    Scale,
    Shift,
    Shuffle,
    Source,
    Start,
    Store,
    Stretch,
    Subtract,
    Swap,
    Switch,
    Truncate,
    edit,
    embed_all,
    encode,
    operators,
    render,
    run_jobs,
)
from embedlab.cell import cells_per_call, fingerprint
from embedlab.condition import condition_calls, schedule_of
from embedlab.errors import EmbedlabError
from embedlab.guidance import guided, in_turn
from embedlab.metrics.score import score_names
from embedlab.sampler import generators, moments, noise, sample
from embedlab.schedule import resolve
from embedlab.scheduler_options import installed
from embedlab.sweep.explained import explained
from embedlab.validate import validate

PROMPT = "a picture of a puppy"
CAT = Replace("puppy", "cat")


def steps(count, calls_a_step=1):
    """Moments of a schedule of so many steps."""
    total = count * calls_a_step
    return [
        Moment(call, (call + calls_a_step - 1) // calls_a_step, count, 1000 - 10 * call, 5.0 - call / 10, total)
        for call in range(total)
    ]


def values(curve, count=10, calls_a_step=1):
    return [curve(moment) for moment in steps(count, calls_a_step)]


def test_a_switch_turns_at_the_first_call_that_reaches_its_time():
    for clock, when in (("fraction", 0.3), ("step", 3), ("timestep", 970), ("sigma", 4.7)):
        assert "".join(values(Switch(["a", "b"], when, clock))) == "aaabbbbbbb", clock
    assert "".join(values(Switch(["a", "b", "c"], [0.2, 0.9]))) == "aabbbbbbbc"
    assert "".join(values(Switch(["a", "b"], 0))) == "b" * 10
    assert "".join(values(Switch(["a", "b"], 1))) == "a" * 10


def test_a_fraction_of_every_number_of_steps_turns_at_the_right_step():
    """In float32 a share such as 0.29 of 100 steps lands one step early or late (ComfyUI 5917, 16156)."""
    for count in (7, 25, 30, 50, 99, 100):
        for turn in range(count + 1):
            seen = values(Switch([0, 1], turn / count), count)
            assert seen == [0] * turn + [1] * (count - turn), (count, turn)


def test_both_calls_of_a_second_order_step_see_one_value():
    seen = values(Switch([0, 1], at=0.5), count=4, calls_a_step=2)
    by_step = {}
    for moment, value in zip(steps(4, 2), seen, strict=True):
        by_step.setdefault(moment.step, set()).add(value)
    assert all(len(found) == 1 for found in by_step.values())


def a1111(text, calls):
    """Its rule, written out: the first entry whose end is not before the number of the call (from 0)."""
    return [next(value for end, value in text if call <= end) for call in range(calls)]


@pytest.mark.parametrize(
    ("when", "entries"),
    [
        (0.5, [(5, "cat"), (10, "dog")]),
        (3, [(3, "cat"), (10, "dog")]),
        (0.25, [(2, "cat"), (10, "dog")]),
        (1.0, [(10, "cat")]),
        (1, [(1, "cat"), (10, "dog")]),
        (0.05, [(10, "dog")]),  # an end before the first step makes no entry
    ],
)
def test_a1111s_prompt_editing_is_a_named_variant(when, entries):
    """`[cat:dog:when]` in 10 steps; the entries are those of its own parser (peers' goldens)."""
    assert values(Switch(["cat", "dog"], when, "a1111")) == a1111(entries, 10)


def test_a1111s_alternation_uses_the_first_value_twice():
    entries = [(n + 1, "abc"[n % 3]) for n in range(6)]
    assert values(Alternate(["a", "b", "c"], clock="a1111"), 6) == a1111(entries, 6)
    assert "".join(values(Alternate(["a", "b", "c"]), 6)) == "abcabc"
    assert "".join(values(Alternate(["a", "b"], every=2), 6)) == "aabbaa"


def test_a_ramp_goes_through_its_points():
    assert values(Ramp([0, 1], [0, 1]), 4) == [0, 0.25, 0.5, 0.75]
    assert values(Ramp([2, 0, 1], [2, 4, 8], "step"), 10) == [2, 2, 2, 1, 0, 0.25, 0.5, 0.75, 1, 1]
    assert values(Ramp([0, 1], [980, 940], "timestep"), 8) == pytest.approx([0, 0, 0, 0.25, 0.5, 0.75, 1, 1])
    wave = values(Ramp([0, 1], [0, 1], shape="cosine"), 4)
    assert wave[0] == 0
    assert wave[2] == pytest.approx(0.5)
    assert 0 < wave[1] < 0.25


@pytest.mark.parametrize("scheduler", sorted(installed()))
def test_every_call_of_every_scheduler_has_its_moment(emoji, scheduler):
    sampler = Sampler(scheduler, steps=6)
    calls = moments(sampler.make(emoji.scheduler))
    met = []

    def denoise(x, t):
        met.append(float(t))
        return torch.zeros_like(x)

    sample(in_turn([denoise] * len(calls)), noise((4, 8, 8), [torch.Generator()]), sampler.make(emoji.scheduler))
    assert met == [moment.timestep for moment in calls]
    assert [m.call for m in calls] == list(range(len(met)))
    assert calls[0].fraction == 0
    assert calls[-1].fraction < 1
    steps = {m.step: m.sigma for m in reversed(calls)}  # the first call of each
    assert all(a >= b > 0 for a, b in pairwise(steps[n] for n in sorted(steps)))
    if scheduler != "dpm_2_ancestral":  # whose middle of a step is the next one's level, but for rounding
        assert all(a.sigma >= b.sigma > 0 for a, b in pairwise(calls))
    if scheduler == "heun":
        assert [m.step for m in calls] == [0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]


def test_a_late_start_keeps_the_clock_of_the_whole_schedule(emoji):
    calls = moments(Sampler("ddim", steps=10).make(emoji.scheduler), first=4)
    assert [m.step for m in calls] == [4, 5, 6, 7, 8, 9]
    assert calls[0].fraction == 0.4


@pytest.fixture(scope="module")
def small(emoji):
    """Cells of four steps on the default model, and how to render them."""

    def cell(operators=(), **more):
        return Cell(more.pop("prompt", PROMPT), operators, sampler=Sampler("ddim", steps=4), **more)

    def picture(*cells):
        return [made.latents for made in render(emoji, cells, [3])]

    return cell, picture


def same(a, b):
    """To the noise of other batches."""
    return torch.allclose(a, b, atol=1e-4)


def test_a_schedule_that_never_turns_is_the_plain_cell(small):
    cell, picture = small
    plain, cat = picture(cell(), cell([CAT]))
    for timed, expected in [
        (cell([During(CAT, begin=1)]), plain),
        (cell([During(CAT, begin=0)]), cat),
        (cell([Replace("puppy", Switch(["cat", "dog"], 1))]), cat),
        (cell([Interpolate("puppy", "cat", Ramp([1, 1]))]), cat),
        (cell([Interpolate("puppy", "cat", Ramp([0, 0]))]), plain),
        (cell(prompt=Switch([PROMPT, "a picture of a cat"], 0)), cat),
        (cell(guidance=Guidance(Switch([4.0, 1.0], 1))), plain),
        (cell(encoder=Encoder(skip=Alternate([0, 0]))), plain),
    ]:
        assert same(picture(timed)[0], expected), timed


def test_a_schedule_in_between_is_neither_end_and_each_axis_counts(small):
    cell, picture = small
    plain, cat = picture(cell(), cell([CAT]))
    seen = [plain, cat]
    for timed in [
        cell([During(CAT, begin=0.5)]),
        cell([During(CAT, end=0.5)]),
        cell([Interpolate("puppy", "cat", Ramp([0, 1]))]),
        cell(prompt=Alternate([PROMPT, "a picture of a cat"])),
        cell(guidance=Guidance(Ramp([8, 1]))),
        cell(guidance=Guidance(4, Switch([None, "green"], 0.5))),
        cell([Blend("a picture of a cat", Ramp([0, 1]))]),
    ]:
        (made,) = picture(timed)
        assert not any(same(made, other) for other in seen), timed
        seen.append(made)


def test_it_is_the_loop_that_a_reader_would_write(small, emoji):
    """Two steps as written, two with the edit, by hand."""
    cell, picture = small
    rows = embed_all(PROMPT, emoji.towers)
    told, cat, empty = encode([rows, edit(rows, [CAT], emoji.towers), embed_all("", emoji.towers)], emoji.towers)
    scheduler = Sampler("ddim", steps=4).make(emoji.scheduler)
    with torch.inference_mode():
        x = noise((8, 16, 16), generators([3]))
        for n, t in enumerate(scheduler.timesteps):
            x = scheduler.step(guided(emoji.unet, [cat if n >= 2 else told], [empty], [4.0])(x, t), t, x).prev_sample
    assert same(picture(cell([During(CAT, begin=0.5)]))[0], x)


@pytest.fixture
def rows(emoji):
    """How many rows each call of the UNet had."""
    seen = []
    handle = emoji.unet.register_forward_pre_hook(lambda unet, given: seen.append(len(given[0])))
    yield seen
    handle.remove()


@pytest.fixture
def texts(emoji):
    """How many windows each call of the text encoder had."""
    seen = []
    (tower,) = emoji.towers
    hook = tower.core.register_forward_pre_hook(
        lambda core, words, given: seen.append(len(given["input_ids"])), with_kwargs=True
    )
    yield seen
    hook.remove()


def test_a_schedule_costs_no_more_unet_rows_and_each_text_is_encoded_once(small, rows, texts):
    cell, picture = small
    picture(cell([During(CAT, begin=0.5)]))
    assert rows == [2, 2, 2, 2]
    assert texts == [1, 1, 1]  # as written, edited, and the empty prompt, each alone
    rows.clear()
    texts.clear()
    picture(cell([CAT], guidance=Guidance(Switch([4, 1], 0.5))), cell(guidance=Guidance(Switch([4, 1], 0.5))))
    assert rows == [3, 4, 2, 2], "as long as latents are equal, so are the unconditional rows"
    assert texts == [1, 1, 1]


def test_the_table_of_what_was_active_when(small, emoji):
    cell, _ = small
    sampler = Sampler("heun", steps=3)
    timed = Cell(PROMPT, [During(CAT, begin=1, clock="step")], guidance=Guidance(Ramp([1, 3])), sampler=sampler)
    (made,) = render(emoji, [timed], [0])
    table = schedule_of(made.cell, made.conditioning, moments(sampler.make(emoji.scheduler)))
    assert [row["edit"] for row in table] == ["as written", *["puppy → cat"] * 4]
    assert [row["guidance.scale"] for row in table] == pytest.approx([1, 5 / 3, 5 / 3, 7 / 3, 7 / 3])
    assert table[0]["timestep"] > table[-1]["timestep"]
    assert schedule_of(cell(), (), []) == []


def test_plain_cells_of_equal_settings_are_one(emoji):
    calls = moments(Sampler(steps=25).make(emoji.scheduler))
    turning = cells_per_call(Cell(PROMPT, [Interpolate("puppy", "cat", Alternate([0, 1]))]), calls)
    assert len({id(cell) for cell in turning}) == 2
    assert len({fingerprint(cell) for cell in turning}) == 2
    ramp = cells_per_call(Cell(PROMPT, [Interpolate("puppy", "cat", Ramp([0, 1]))]), calls)
    assert len({id(cell) for cell in ramp}) == 25


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Switch(["a"], []), "values is ['a']; it has to be a list of two or more"),
        (lambda: Switch(["a", "b"], [0.2, 0.4]), "a switch of 2 values needs 1 times; at is 0.2, 0.4"),
        (lambda: Switch([0, 1, 2], [0.5, 0.2]), "the times 0.5, 0.2 are out of order; on the clock fraction they"),
        (lambda: Switch([0, 1, 2], [200, 500], "timestep"), "on the clock timestep they have to fall"),
        (lambda: Switch([0, 1], "half"), "'half' is no time; on the clock fraction it has to be a number"),
        (lambda: Switch([0, 1], -1, "step"), "-1 is no time"),
        (lambda: Switch([0, 1], float("nan")), "nan is no time"),
        (lambda: Switch([0, 1], 0.5, "hours"), "clock is 'hours'; choose one of step, fraction, timestep"),
        (lambda: Ramp([0, 1], [0.5]), "a ramp needs a time for each value"),
        (lambda: Ramp(["cat", "dog"]), "a ramp runs between numbers; 'cat' is none (use a Switch)"),
        (lambda: Ramp([0, 1], clock="a1111"), "A1111 has no ramps"),
        (lambda: Ramp([0, 1], shape="wild"), "shape is 'wild'; choose one of linear, cosine"),
        (lambda: Alternate(["a"]), "to alternate, it has to be a list of two or more"),
        (lambda: Alternate(["a", "b"], every=0), "every is 0; it has to be a whole number of steps"),
        (lambda: Alternate(["a", "b"], clock="sigma"), "to alternate, the clock is 'sigma'; choose one of step, a1111"),
        (lambda: During(CAT), "begin or end has to be given"),
        (lambda: During("cat", 0.5), "operator is 'cat'; it has to be an operator"),
        (lambda: Cell(PROMPT, [During(CAT, 26, clock="step")]), "step 26 is past the end; there are 25 steps, so it"),
        (lambda: Cell(PROMPT, [During(CAT, 1.5)]), "fraction 1.5 is past the end"),
        (lambda: Cell(PROMPT, [Replace("puppy", Switch(["cat", "golden retriever"], 0.5))]), "'puppy' has 1 token and"),
        (lambda: Cell(PROMPT, [Interpolate("kitten", "cat", Ramp([0, 1]))]), "'kitten' is not in the prompt"),
        (lambda: Cell(Switch([PROMPT, "a cat"], 0.5), [CAT]), "'puppy' is not in the prompt; its words are a, cat"),
        (lambda: Cell(PROMPT, guidance=Guidance(Ramp([4, 0]))), "guidance.scale is 0.96; 1 is the prompt alone"),
        (lambda: Cell(PROMPT, encoder=Encoder(skip=Switch([0, 9], 0.5))), "encoder.skip is 9, but the part"),
        (lambda: Cell(PROMPT, start=Start("puppy.png", strength=Ramp([0, 1]))), "start.strength is"),
        (
            lambda: Cell(PROMPT, [Replace("puppy", "cat", Switch(["token", "hidden"], 1))]),
            "the one setting that cannot",
        ),
        (
            lambda: Cell(PROMPT, [During(Scale("puppy", 2, Alternate(["token", "hidden"])), 0.5)]),
            "stage is (token | hid",
        ),
        (
            lambda: Cell(PROMPT, [Switch([Scale("puppy", 2, Switch(["token", "both"], 1)), CAT], 0)]),
            "Switch of operators",
        ),
    ],
)
def test_bad_schedules_are_one_clear_line(make, message):
    with pytest.raises(EmbedlabError, match=re.escape(message)) as caught:
        validate(make(), Source("emoji"))
    assert "\n" not in str(caught.value)


def test_an_operator_that_changes_is_refused_outside_a_cell(emoji):
    rows = embed_all(PROMPT, emoji.towers)
    louder = Scale("puppy", Ramp([1, 2]))
    with pytest.raises(EmbedlabError, match="changes over time; a cell takes it"):
        edit(rows, [louder], emoji.towers)
    now = resolve(louder, steps(10)[5])
    assert now == Scale("puppy", 1.5)
    assert edit(rows, [now], emoji.towers)


BLOCKS = {"blocks": (None, ("mid",))}
PUPPY, WORDS = (
    {"rows": rows, "encoder": (None, 1), **BLOCKS} for rows in (("puppy", "picture"), ("a picture", "picture of"))
)
WEIGHT, SEED, LENGTHS = {"weight": (0.0, 1.0)}, {"seed": (0, 1)}, {"lengths": ("error", "repeat", "resample", "zero")}
TOWARD = {"direction": ("cat", {"cat": 1, "dog": -1}, 5)}
EVERY = [
    (Add("puppy", "cat"), {**PUPPY, **TOWARD, **WEIGHT}),
    (Subtract("puppy", "cat"), {**PUPPY, **TOWARD, **WEIGHT}),
    (ProjectOut("puppy", "cat"), {**PUPPY, **TOWARD, **WEIGHT}),
    (Scale("puppy", 2), {**PUPPY, "by": (1, 2)}),
    (Normalise("puppy"), {**PUPPY, "to": (1, 2), **WEIGHT}),
    (Average("a picture"), {**WORDS, **WEIGHT}),
    (Drop("puppy"), PUPPY),
    (Noise("puppy"), {**PUPPY, "amount": (0, 0.5), **SEED}),
    (Rotate("puppy"), {**PUPPY, "angle": (0, 90), **SEED}),
    (Shuffle("a picture"), {**WORDS, **SEED}),
    (
        Interpolate("puppy", "cat"),
        {**PUPPY, "toward": ("cat", "dog"), **WEIGHT, "path": ("lerp", "slerp", "slerp_whole"), **LENGTHS},
    ),
    (Reverse("a picture"), WORDS),
    (Permute("a picture", (1, 0)), {**WORDS, "order": ([0, 1], [1, 0])}),
    (Swap("puppy", "of"), {**PUPPY, "by": ("of", "picture"), **LENGTHS}),
    (Shift("puppy"), {**PUPPY, "by": (0, 1.5)}),
    (Place("puppy", 9), {**PUPPY, "at": (3, 9)}),
    (Freeze("puppy"), {**PUPPY, "at": (3, 9), **WEIGHT}),
    (Stretch("puppy"), {**PUPPY, "keep": (3, 9), "factor": (1, 4)}),
    (Replace("puppy", "cat"), {**PUPPY, "by": ("cat", 5, {"cat": 1, "dog": -1}), **LENGTHS}),
    (Blend("a cat"), {"prompts": ("a cat", "a dog"), **WEIGHT, "own": (0.5, 1), "lengths": ("empty", "own"), **BLOCKS}),
    (Concatenate("a cat"), {"prompts": ("a cat", "a dog"), **WEIGHT}),
    (Truncate(9), {"to": (9, 77)}),
]


def test_every_setting_of_every_operator_may_change_but_stage_and_what_may_ends_in_a_result(emoji, tmp_path):
    """Nothing is first refused when a picture was drawn: label, scores, schedule and files are made of each.

    All are made and have their scores; those of a seventh of the operators are explained and drawn, by turn.
    """
    cells, drawn, source = [], [], Source("emoji", device="cpu")
    for place, (operator, settings) in enumerate(EVERY):
        whole = "blocks" in settings
        fixed = {"stage"} & vars(operator).keys() | (set() if whole else {"blocks"})
        assert {f.name for f in dataclasses.fields(operator)} == {*settings} | fixed
        if not whole:  # blocks of a UNet read as many rows as each other
            with pytest.raises(EmbedlabError, match="blocks"):
                condition_calls(emoji, [Cell(PROMPT, [dataclasses.replace(operator, blocks=("mid",))])])
        for name, choices in settings.items():
            for curve in (Alternate(choices), Switch(choices[:2], 1)):
                changing = dataclasses.replace(operator, **{name: curve})
                drawn += [len(cells)] * mine(place)
                cells.append(Cell(PROMPT, [changing], sampler=Sampler("ddim", len(choices)), size=32))
        if "stage" in vars(operator):
            with pytest.raises(EmbedlabError, match="it is the one setting that cannot change over time"):
                Cell(PROMPT, [dataclasses.replace(operator, stage=Switch(["token", "hidden"], 0.5))])
    kinds = {getattr(operators, name) for name in operators.__all__}
    assert {type(operator) for operator, _ in EVERY} == {kind for kind in kinds if dataclasses.is_dataclass(kind)}
    jobs = [Job(source, cell, (0,), tmp_path / str(n), number=n) for n, cell in enumerate(cells)]
    assert all(score_names(job.cell, job.metrics, source) for job in jobs)
    assert all(explained(jobs[n]) for n in drawn)
    outcome = run_jobs([jobs[n] for n in drawn], Store(tmp_path / "store"))
    assert not outcome.failures
    assert len(drawn) > 0
    assert [result.status for result in outcome.results.values()] == ["done"] * len(drawn)
