"""The whole arrow with the model on a device that is not the CPU: without one, as on one."""

from contextlib import nullcontext
from functools import cache

import pytest
import torch
from pretended import Far, Pretended, sent
from tiny import OPERATORS, PROMPT

from embedlab import (
    Cell,
    Encoder,
    Guidance,
    Interpolate,
    Metrics,
    Sampler,
    Start,
    Switch,
    explain,
    models,
    prompt_embeds,
    render,
    rendering,
    score,
)
from embedlab.condition import condition
from embedlab.guidance import scale_embedding
from embedlab.sampler import generators, loop, noise, sample
from embedlab.scheduler_options import installed

SEEDS = [0, 1]
LONG = "a cat, " * 40  # two windows
KINDS = ("sd1", "sd2", "sdxl", "emoji")


class Watched(Pretended):
    """The device, and which of its waits are inside the sampling loop: from the first call of the denoiser on."""

    def __init__(self):
        super().__init__()
        self.inside = []

    def sample(self, denoise, *settings, **hooks):
        begin = []

        def first(x, t):
            begin[:] = begin or [len(self.waits)]
            return denoise(x, t)

        out = sample(first, *settings, **hooks)
        self.inside += self.waits[begin[0] :]
        return out


@pytest.fixture
def device(monkeypatch):
    made = Watched()
    monkeypatch.setattr(rendering, "sample", made.sample)
    return made


@pytest.fixture(scope="module")
def load(folders):
    return cache(lambda kind, dtype="float32": models.load(str(folders.get(kind, kind)), device="cpu", dtype=dtype))


def cells():
    """Guided and not, of one window and of two, edited before the encoder and after it, changing over time."""
    sampler = Sampler("ddim", 2)
    changing = Guidance(Switch([1.0, 4.0], at=0.5), negative="a fox")
    return [
        Cell(PROMPT, guidance=Guidance(1.0), sampler=sampler),
        Cell(LONG, sampler=sampler),
        Cell(PROMPT, OPERATORS[-2:], sampler=sampler),
        Cell(PROMPT, [Interpolate("puppy", "fox", 0.5)], encoder=Encoder(skip=1, stretch=2), sampler=sampler),
        Cell(Switch([PROMPT, LONG], at=0.5), guidance=changing, sampler=sampler),
    ]


def same(here, there):
    for a, b in zip(here, there, strict=True):
        assert not isinstance(a.latents, Far), "pictures and latents are handed out on the CPU"
        assert torch.equal(a.latents, b.latents)
        assert torch.equal(a.pictures, b.pictures)
        for x, y in zip(a.steps, b.steps, strict=True):
            assert torch.equal(x.latents, y.latents)
            assert torch.equal(x.x0, y.x0)


@pytest.mark.parametrize(
    ("kind", "dtype"), [*((k, "float32") for k in KINDS), ("sdxl", "bfloat16"), ("emoji", "bfloat16")]
)
def test_pictures_and_scores_are_those_of_the_cpu_and_the_loop_never_waits(load, device, kind, dtype):
    model = load(kind, dtype)
    few = cells()[::2] if kind == "emoji" else cells()  # a size that one can look at, and a scorer
    there = render(model, few, SEEDS)
    words = Metrics(words=("puppy", "fox"))
    figures, table = score(model, there[0], there[-2], words), explain(few[-2], model.towers)
    with torch.inference_mode(), device:
        far = sent(model)
        here = render(far, few, SEEDS)
        assert score(far, here[0], here[-2], words) == figures
        assert explain(few[-2], far.towers) == table
        for name, rows in prompt_embeds(few[-2], far.towers).items():
            assert torch.equal(rows.cpu(), prompt_embeds(few[-2], model.towers)[name])
    same(here, there)
    assert device.waits, "what is looked at is waited for"
    assert not device.inside


@pytest.mark.parametrize("kind", ["sd1", "sdxl"])
def test_every_operator_edits_there_as_on_the_cpu(load, device, kind):
    model, every = load(kind), [Cell(PROMPT, [operator]) for operator in OPERATORS]
    there = condition(every, model.towers)
    with torch.inference_mode(), device:
        here = condition(every, sent(model).towers)
        for a, b in zip(here, there, strict=True):
            assert isinstance(a.cond.hidden, Far)
            assert torch.equal(a.cond.hidden.cpu(), b.cond.hidden)
            assert torch.equal(a.cond.pooled.cpu(), b.cond.pooled)


@pytest.mark.turns
@pytest.mark.parametrize("scheduler", installed())
def test_no_scheduler_waits_and_all_end_as_on_the_cpu(load, device, scheduler):
    """From noise, and from a picture; stochastic ones, too: their noise comes from generators on the CPU."""
    model = load("sd1")
    starts = Start(), Start("puppy.png", strength=0.6)
    few = [Cell(PROMPT, sampler=Sampler(scheduler, 5, keep=[4]), start=start) for start in starts]
    there = render(model, few, SEEDS)
    with torch.inference_mode(), device:
        same(render(sent(model), few, SEEDS), there)
    assert not device.inside


@pytest.mark.parametrize("scheduler", ["unipc", "ddpm", "euler_ancestral"])
def test_schedulers_that_wait_when_left_alone(load, device, scheduler, monkeypatch):
    monkeypatch.setattr(loop, "NumbersOnCpu", nullcontext)
    with torch.inference_mode(), device:
        render(sent(load("sd1")), [Cell(PROMPT, sampler=Sampler(scheduler, 4))], SEEDS)
    assert len(device.inside) >= 3
    assert all("advance(seen, t, x" in line for line in device.inside), "each line says who waits"


OFFENDERS = {
    "a number": lambda x: x * x.abs().max().item(),
    "a Python number": lambda x: x * float(x.mean()),
    "a list": lambda x: x * x[0, 0, 0].tolist()[0],
    "a copy": lambda x: x + (x.cpu() * 2).mean(),
    "a condition": lambda x: x if (x > 0).any() else -x,
    "an index of a table": lambda x: x * torch.ones(1000)[x.argmax() % 1000],
    "a mask": lambda x: x + x[x > 0].mean(),
    "rows": lambda x: x[[1, 0]],
    "a new tensor": lambda x: x * torch.tensor(2.0, device=x.device),
    "noise": lambda x: x + torch.randn(x.shape).to(x.device),
    "noise that is not in pinned memory": lambda x: x + torch.randn(x.shape).to(x.device, non_blocking=True),
    "a solution": lambda x: torch.linalg.solve(torch.eye(8, device="cuda:0"), x),
    "a place": lambda x: x + len((x > 0).nonzero()),
    "equality": lambda x: x if torch.equal(x, x) else -x,
    "a stop": lambda x: torch.cuda.synchronize() or x,
}
REFUSED = {
    "noise left on the CPU": lambda x: x + torch.randn(x.shape),
    "rows left on the CPU": lambda x: torch.cat([x, torch.zeros(1, *x.shape[1:])]),
    "a number among rows": lambda x: torch.stack([x.mean(), torch.tensor(1.0)]),
    "a table left on the CPU": lambda x: x * torch.ones(1000)[x.argmax()[None] % 1000],
    "weights left on the CPU": lambda x: torch.nn.functional.linear(x, torch.ones(8, 8)),
    "weights of another type": lambda x: torch.nn.functional.linear(x, torch.ones(8, 8, device=x.device).bfloat16()),
    "a norm of another type": lambda x: torch.nn.functional.layer_norm(x.bfloat16(), (8,), torch.ones_like(x[0, 0, 0])),
}
IN_ORDER = {
    "a number from the CPU": lambda x: 1.0 - x * torch.tensor(2.0) + torch.tensor(1.0) / x.abs().clamp_min(1),
    "a tensor filled there": lambda x: x + torch.full((8,), 2.0, device=x.device) + torch.arange(8, device="cuda"),
    "rows by rows that are there": lambda x: x[torch.arange(2, device=x.device).flip(0)],
    "views": lambda x: torch.cat([x[:1], x[1:]]).flatten(1)[:, None].unflatten(2, x.shape[1:])[:, 0, ..., :],
    "assignment": lambda x: x.clone().index_fill_(0, torch.zeros(1, dtype=torch.long, device=x.device), 1.0),
    "a mask that keeps the size": lambda x: torch.where(x > 0, x, 0.0).masked_fill(x < -1, 0),
    "another type": lambda x: x.bfloat16().to(x),
    "pinned memory": lambda x: x + torch.randn(x.shape).pin_memory().to(x.device, non_blocking=True),
}


def run(device, step):
    """A loop of three steps whose denoiser does this."""
    with torch.inference_mode(), device:
        begin = noise((4, 8, 8), generators(SEEDS)).to("cuda")
        scheduler = Sampler("ddim", 3).make(models.Source("emoji").scheduler)
        return device.sample(lambda x, t: step(x), begin, scheduler).latents


@pytest.mark.parametrize("name", OFFENDERS)
def test_what_waits_is_found(device, name):
    run(device, OFFENDERS[name])
    assert len(device.inside) >= 3, "in each step"
    assert all("test_device.py" in line for line in device.inside)


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_gpu_refuses_is_refused(device, name):
    with pytest.raises(RuntimeError, match="of tensors on two devices|of tensors of two number types"):
        run(device, REFUSED[name])


@pytest.mark.parametrize("name", IN_ORDER)
def test_what_a_gpu_takes_is_taken(device, name):
    assert isinstance(run(device, IN_ORDER[name]), Far)
    assert not device.inside


def test_weights_left_on_the_cpu_are_found(load, device):
    model = load("sd1")
    with torch.inference_mode(), device:
        far = sent(model)
        far.unet.conv_out.bias = model.unet.conv_out.bias
        with pytest.raises(RuntimeError, match=r"conv2d of tensors on two devices: \(4,\) on the CPU"):
            render(far, cells()[:1], SEEDS)


def test_tensors_of_the_device_do_nothing_without_it(device):
    with torch.inference_mode(), device:
        x = torch.ones(2, device="cuda")
    with pytest.raises(RuntimeError, match="which is not on"):
        x + 1
    assert torch.tensor(scale_embedding([1.0], 4).tolist()).device.type == "cpu"
