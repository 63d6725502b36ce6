"""What only a GPU can show; `make test-gpu` runs it. EMBEDLAB_GPU=cpu runs all but the last part on the CPU.

Float32 pictures are compared with the CPU's, without TF32: latents within 1e-3 of their largest number. Another batch
size is another kernel: within 1e-3 as well. Half precision: latents within 0.1 of their length.
"""

import contextlib
import gc
import importlib.util
import json
import weakref
from pathlib import Path

import pytest
import torch
from conftest import DEVICE
from diffusers import UNet2DConditionModel
from tiny import OPERATORS, PROMPT
from torch.nn.modules.module import register_module_forward_pre_hook

from embedlab import (
    Cell,
    Encoder,
    Guidance,
    Interpolate,
    Sampler,
    Start,
    Switch,
    edit,
    edit_encoded,
    embed_all,
    encode,
    explain,
    models,
    prompt_embeds,
    render,
    score,
    texts_of,
)
from embedlab.guidance import guided
from embedlab.metrics.distance import latent_distance
from embedlab.sampler import generators, noise, sample
from embedlab.scheduler_options import installed

CUDA = DEVICE.type == "cuda"
RUN = [name for name in installed() if name != "lms" or importlib.util.find_spec("scipy")]  # run.py says so
KINDS = ("sd1", "sd2", "sdxl", "emoji")
SEEDS = [0, 1]


def cells(**more):
    texts = (PROMPT, "a cat, " * 40)  # one window, two windows
    sampler = Sampler("ddim", 4)
    plain = [Cell(text, guidance=Guidance(s), sampler=sampler, **more) for text in texts for s in (1.0, 4.0)]
    return [*plain, Cell(PROMPT, [Interpolate("puppy", "fox", 0.5)], sampler=sampler, **more)]


def near(here, there, most=1e-3):
    scale = float(there.abs().max())
    assert here.device.type == "cpu", "pictures and latents are handed out on the CPU"
    assert torch.isfinite(here).all()
    assert float((here - there).abs().max()) <= most * scale, float((here - there).abs().max()) / scale


@pytest.mark.parametrize("kind", KINDS)
def test_everything_of_a_model_is_on_the_device(load, kind):
    model = load(kind)
    parts = [model.unet, model.vae, *(tower.encoder for tower in model.towers)]
    parts += [model.scorer.image, model.scorer.text.encoder] if model.scorer else []
    for part in parts:
        for value in (*part.parameters(), *part.buffers()):
            assert value.device.type == DEVICE.type, type(part).__name__


@pytest.mark.parametrize("kind", KINDS)
def test_edited_rows_are_read_as_on_the_cpu(load, kind):
    """Injection: rows that an operator made reach the encoder, and what it makes of them is the CPU's."""
    here, there, seen = load(kind), load(kind, device="cpu"), []
    for operator in (None, *OPERATORS):
        read = []
        for model in (here, there):
            rows = embed_all(PROMPT, model.towers)
            (one,) = encode([edit(rows, [operator] if operator else [], model.towers)], model.towers)
            read.append(edit_encoded(one, [operator] if operator else [], texts_of(model.towers)))
        near(read[0].hidden.cpu(), read[1].hidden)
        near(read[0].pooled.cpu(), read[1].pooled)
        seen.append(torch.cat([read[0].hidden.flatten(), read[0].pooled]).cpu())
    assert not any(torch.equal(seen[0], edited) for edited in seen[1:])


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_are_those_of_the_cpu(load, kind):
    here, there = (render(load(kind, device=d), cells(), SEEDS) for d in (DEVICE, "cpu"))
    for a, b in zip(here, there, strict=True):
        near(a.latents, b.latents)
        near(a.pictures, b.pictures)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_is_close_to_float32(load, kind, dtype):
    half, whole = (render(load(kind, d), cells(), SEEDS) for d in (dtype, "float32"))
    for a, b in zip(half, whole, strict=True):
        assert torch.isfinite(a.pictures).all()
        assert (latent_distance(b.latents, a.latents) < 0.1).all(), latent_distance(b.latents, a.latents)


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_is_its_pictures_one_by_one(load, kind):
    model = load(kind)
    for together, alone in zip(*(render(model, cells(), SEEDS, at_once=n) for n in (16, 1)), strict=True):
        near(together.latents, alone.latents)


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_guidance_is_the_formula(load, kind):
    model = load(kind)
    towers = model.towers
    cond, uncond = encode([embed_all(PROMPT, towers), embed_all("a fox, " * 40, towers)], towers)
    size = (model.size, model.size) if model.size_conditioned else None
    shape = (model.unet.config.in_channels, model.unet.config.sample_size, model.unet.config.sample_size)
    x, t = noise(shape, generators([0, 0, 0])).to(DEVICE), torch.tensor(500, device=DEVICE)
    with_it, without, both = (
        guided(model.unet, [c] * 3, [uncond] * 3, scales, size)(x, t)
        for c, scales in ((cond, [1.0] * 3), (uncond, [1.0] * 3), (cond, [1.0, 4.0, 7.5]))
    )
    scale = torch.tensor([1.0, 4.0, 7.5], device=DEVICE).view(3, 1, 1, 1)
    near(both.cpu(), (without + scale * (with_it - without)).cpu(), 7.5e-3)  # a difference, weighted by 7.5


@pytest.mark.parametrize("scheduler", RUN)
def test_every_scheduler_ends_as_on_the_cpu(load, scheduler):
    """Stochastic ones, too: their noise comes from generators on the CPU. From noise, and from a picture."""
    for start in (Start(), Start("puppy.png", strength=0.6)):
        cell = Cell(PROMPT, sampler=Sampler(scheduler, 5, keep=[4]), start=start)
        (here,), (there,) = (render(load("sd1", device=d), [cell], SEEDS) for d in (DEVICE, "cpu"))
        near(here.latents, there.latents)


def test_settings_that_change_while_a_picture_is_made(load):
    scale = Switch([1.0, 4.0], at=0.5)
    text = Switch([PROMPT, "a cat, " * 40], at=0.5)
    cell = Cell(text, guidance=Guidance(scale), encoder=Encoder(skip=1), sampler=Sampler("euler", 4))
    (here,), (there,) = (render(load("sd1", device=d), [cell], SEEDS) for d in (DEVICE, "cpu"))
    near(here.latents, there.latents)


def test_scores_tables_and_files_are_those_of_the_cpu(load):
    seen = []
    for device in (DEVICE, "cpu"):
        model = load("emoji", device=device)
        cell = Cell("a puppy", [Interpolate("puppy", "fox", 0.5)], sampler=Sampler("ddim", 8))
        before, after = render(model, [cell.baseline(), cell], SEEDS)
        seen.append((score(model, before, after)[1], explain(cell, model.towers), prompt_embeds(cell, model.towers)))
    (here, table, embeds), (there, table_there, embeds_there) = seen
    assert here == pytest.approx(there, rel=0.01, abs=0.05)
    assert [t.near_after for t in table.tokens] == [t.near_after for t in table_there.tokens]
    for name, value in embeds.items():
        near(value.cpu(), embeds_there[name])


def test_gradients_reach_a_setting(load):
    towers = load("sd1").towers
    weight = torch.tensor(0.5, device=DEVICE, requires_grad=True)
    (one,) = encode([edit(embed_all(PROMPT, towers), [Interpolate("puppy", "fox", weight)], towers)], towers)
    one.hidden.square().sum().backward()
    assert torch.isfinite(weight.grad)
    assert weight.grad != 0


@pytest.fixture
def sweep(embedlab):
    """A sweep by the command, on the device."""

    def run(*words):
        return embedlab("-m", f"model.device={DEVICE}", *words)

    return run


def done(code, out, err):
    """Whether all jobs were made; where pyarrow is missing, the table of the sweep cannot be (run.py says so)."""
    missing = "1 failed:" in out + err and "No module named 'pyarrow'" in out + err
    return code == 0 or (missing and not importlib.util.find_spec("pyarrow"))


def results(folder):
    return [json.loads(file.read_text()) for file in sorted(Path(folder).glob("*/result.json"))]


def test_a_sweep_is_taken_up_where_it_ended(sweep, embedlab):
    said = sweep("guidance.scale=2,3,4", "hydra.sweep.dir=out")
    assert done(*said), said
    kept = Path("out/0/result.json").read_bytes()
    pictures = [(Path(f"out/{n}") / f"seed-{s}.png").read_bytes() for n in range(3) for s in SEEDS]
    for file in (*Path("out/1").iterdir(), *Path("out/2").iterdir(), *Path("out/.cells").rglob("*.safetensors")):
        if file.is_file():
            file.unlink()
    said = embedlab("-m", "resume=out")
    assert done(*said), said
    assert [one["status"] for one in results("out")] == ["done"] * 3
    assert Path("out/0/result.json").read_bytes() == kept, "a finished job is left as it is"
    again = [(Path(f"out/{n}") / f"seed-{s}.png").read_bytes() for n in range(3) for s in SEEDS]
    assert again[:2] == pictures[:2]
    assert all(again), "pictures of another batch may differ in a last digit, and are all there"


class Ballast:
    """Memory that each row of the UNet takes while it is called, of which there is enough for so many rows alone.

    What a model takes of a card depends on kernels and on what the allocator holds back; this is the same on all: far
    more than the model's own, and the rest of the card is out of bounds. On the CPU it is counted.
    """

    chunk = 2**27 if CUDA else 2**10

    def __init__(self, rows):
        self.rows, self.taken, self.calls = rows, 0, []

    def take(self):
        if not CUDA and self.taken == self.rows:
            raise torch.OutOfMemoryError("no ballast is left")
        one = torch.empty(self.chunk, dtype=torch.uint8, device=DEVICE)
        self.taken += 1
        weakref.finalize(one, self.give)
        return one

    def give(self):
        self.taken -= 1

    def __call__(self, module, given):
        if not isinstance(module, UNet2DConditionModel):
            return
        held = []  # what failed is held by its frame, which the error holds
        for _ in given[0]:
            held.append(self.take())
        self.calls.append(len(held))

    @contextlib.contextmanager
    def limited(self):
        gc.collect()
        if CUDA:
            torch.cuda.empty_cache()
            most = torch.cuda.memory_reserved() + self.rows * self.chunk
            torch.cuda.set_per_process_memory_fraction(most / torch.cuda.get_device_properties(0).total_memory)
        handle = register_module_forward_pre_hook(self)
        try:
            yield
        finally:
            handle.remove()
            if CUDA:
                torch.cuda.set_per_process_memory_fraction(1.0)


def test_a_batch_that_does_not_fit_is_halved(sweep):
    """Memory that is really full: 16 pictures take 32 rows where there are 24; what failed has to be given back."""
    words = ["model=emoji", "model.dtype=float32", "sampler.steps=2", "at_once=16"]
    if importlib.util.find_spec("embedlab.engines"):
        words.append("engine=eager")
    seeds = list(range(16))
    said = sweep(*words, "seeds=[0,1]", "hydra.sweep.dir=few")  # the model, and what its kernels keep, is there
    assert done(*said), said
    ballast = Ballast(24)
    with ballast.limited():
        said = sweep(*words, f"seeds={seeds}", "hydra.sweep.dir=full", "guidance.scale=5")
    assert done(*said), said
    assert "16 pictures at once do not fit; going on with 8" in "".join(said[1:])
    assert ballast.calls == [16] * 4, "two batches of 8 pictures, two steps each"
    assert len(list(Path("full").rglob("seed-*.png"))) == 16


if CUDA:  # what a CPU cannot show

    @pytest.mark.parametrize("scheduler", RUN)
    @torch.inference_mode()
    def test_the_loop_never_waits_for_the_device(load, scheduler):
        model = load("sdxl", "bfloat16")
        towers = model.towers
        cond, uncond = encode([embed_all(text, towers) for text in (PROMPT, "")], towers)
        denoise = guided(model.unet, [cond] * 2, [uncond] * 2, [4.0] * 2, (model.size, model.size))
        x = noise((4, 8, 8), generators(SEEDS)).to(DEVICE)
        made = Sampler(scheduler, 5).make(model.scheduler)
        sample(denoise, x, made, generators(SEEDS))
        made.set_timesteps(5)

        def watched(x, t):
            torch.cuda.set_sync_debug_mode("error")  # from the first call on
            return denoise(x, t)

        try:
            sample(watched, x, made, generators(SEEDS))
        finally:
            torch.cuda.set_sync_debug_mode("default")

    def test_the_first_gpu_and_half_precision_are_the_default(folders):
        model = models.load(str(folders["sd1"]))
        assert (model.device.type, model.unet.dtype) == ("cuda", torch.bfloat16)
        assert model.vae.dtype == torch.float32
        torch.cuda.reset_peak_memory_stats()
        (one,) = render(model, [Cell(PROMPT, sampler=Sampler("ddim", 2))], SEEDS)
        assert torch.isfinite(one.pictures).all()
