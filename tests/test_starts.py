"""Where sampling starts: noise and its variations, latents from files, pictures, and parts of them that stay."""

import dataclasses
import json
import re
import shutil

import numpy as np
import pytest
import torch
from conftest import open_pipeline
from diffusers import (
    StableDiffusionDepth2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    VQModel,
)
from original_layout import original
from parity import close
from PIL import Image
from safetensors.torch import save_file
from test_sampler import LIBRARY, library_latents
from tiny import noisy, unet

from embedlab import (
    Attention,
    Cell,
    Guidance,
    Inversion,
    Job,
    Sampler,
    Source,
    Start,
    Variation,
    images,
    models,
    render,
    start_latents,
)
from embedlab.cell import picture_size
from embedlab.errors import PictureError, SamplerError
from embedlab.sampler import generators, noise, picture_latents, varied
from embedlab.sampler.seeds import between
from embedlab.validate import validate

SHAPE = (4, 8, 8)
PARTS_OF_DEPTH = ("vae", "text_encoder", "tokenizer", "unet", "scheduler")


def picture(size=(16, 16), seed=0) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(values)


def mask(box=(0, 0, 8, 16), size=(16, 16)) -> Image.Image:
    """White within a box (left, upper, right, lower)."""
    made = Image.new("L", size, 0)
    made.paste(255, box)
    return made


def drawn(model, start, seeds=(0, 1), **more):
    cell = Cell("a puppy", start=start, **{"sampler": Sampler("ddim", 6), "guidance": Guidance(3.0), **more})
    return render(model, [cell], seeds)[0].latents


# ── variations ────────────────────────────────────────────────────────────────────────────────────────────────────


def theirs(val, low, high):
    """A1111's modules/rng.py slerp, read again."""
    low_norm = low / torch.norm(low, dim=1, keepdim=True)
    high_norm = high / torch.norm(high, dim=1, keepdim=True)
    dot = (low_norm * high_norm).sum(1)
    omega = torch.acos(dot)
    so = torch.sin(omega)
    return (torch.sin((1.0 - val) * omega) / so).unsqueeze(1) * low + (torch.sin(val * omega) / so).unsqueeze(1) * high


@pytest.mark.parity(
    "A1111",
    "variation seed",
    "start.variation",
    "formula",
    differs="one other seed is for all images, where A1111 counts it up with them",
)
@pytest.mark.parametrize("strength", [0.1, 0.5, 0.9])
def test_a_variation_is_that_of_a1111(strength):
    own, other = noise(SHAPE, generators([3, 4])), noise(SHAPE, generators([7]))[0]
    made = varied(own, Variation(7, strength))
    close(made, torch.stack([theirs(strength, one, other) for one in own]), atol=1e-6)


def test_a_variation_stays_at_0_and_lands_at_1_to_the_bit(sd1):
    own, other = noise(SHAPE, generators([3, 4])), noise(SHAPE, generators([7]))[0]
    assert torch.equal(varied(own, Variation(7, 0)), own)
    assert torch.equal(varied(own, Variation(7, 1)), other.expand(2, -1, -1, -1))
    assert torch.equal(between(other, other, 0.3), other), "the same noise is not divided by nothing"
    plain = drawn(sd1, Start())
    assert torch.equal(drawn(sd1, Start(variation={"seed": 7, "strength": 0})), plain)
    assert not torch.equal(drawn(sd1, Start(variation={"seed": 7, "strength": 0.2})), plain)
    whole = Cell("a puppy", start=Start(variation={"seed": 7, "strength": 1}))
    assert torch.equal(start_latents(sd1, whole, [3]), start_latents(sd1, Cell("a puppy"), [7]))


def test_noise_between_two_seeds_is_as_long_as_noise():
    halfway = varied(noise((4, 64, 64), generators([0])), Variation(1, 0.5))
    assert abs(float(halfway.std()) - 1) < 0.02


# ── latents ───────────────────────────────────────────────────────────────────────────────────────────────────────


def written(folder, rows):
    """The same latents in each kind of file."""
    save_file({"latents": rows, "other": torch.zeros(1)}, folder / "in.safetensors")
    save_file({"x": rows}, folder / "one.safetensors")
    np.save(folder / "in.npy", rows.numpy())
    torch.save(rows, folder / "in.pt")
    torch.save({"latents": rows}, folder / "named.pt")
    return [folder / name for name in ("in.safetensors", "one.safetensors", "in.npy", "in.pt", "named.pt")]


def test_latents_are_the_same_from_each_kind_of_file_and_seed_n_has_row_n(sd1, tmp_path):
    rows = noise(SHAPE, generators([0, 1, 2]))
    starts = [Start(latents=one) for one in [*written(tmp_path, rows), rows, rows.numpy()]]
    assert len({start.content for start in starts}) == 1
    plain = drawn(sd1, Start(), seeds=(2, 0))
    for start in (starts[0], starts[2], starts[5]):
        assert torch.equal(drawn(sd1, start, seeds=(2, 0)), plain), "the noise of a seed, handed in"
    one = drawn(sd1, Start(latents=rows[1]), seeds=(5, 6))
    assert torch.equal(one[0], one[1])
    with pytest.raises(SamplerError, match="holds 3 latents, for the seeds 0 to 2; seed 3 has none"):
        drawn(sd1, starts[0], seeds=(0, 3))
    with pytest.raises(SamplerError, match="seed 3 has none"):
        Job(Source("emoji"), Cell("a puppy", start=starts[0]), (3,), tmp_path)


@pytest.mark.parity("diffusers", "latents handed in", "start=latents", "live")
@pytest.mark.parametrize("scheduler", ["ddim", "euler"])
def test_latents_are_the_pipelines_argument(folders, sd1, tmp_path, scheduler):
    rows = torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(9))
    pipe = StableDiffusionPipeline(**open_pipeline(folders["sd1"]).components, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    cell = Cell("a puppy", sampler=Sampler(scheduler, 6), guidance=Guidance(3.0, ""), start=Start(latents=rows))
    close(render(sd1, [cell], (0,))[0].latents, library_latents(pipe, cell, sd1.towers, (0,), latents=rows))


def test_latents_of_a_picture_are_noised_as_the_picture_is(sd1):
    given = images.to_tensor(picture()).mul(2).sub(1)
    known = picture_latents(sd1.vae, given, generators([0]))
    ours = start_latents(sd1, Cell("a puppy", sampler=Sampler("ddim", 10), start=Start(latents=known, step=6)), [5])
    scheduler = Sampler("ddim", 10).make(sd1.scheduler)
    expected = scheduler.add_noise(known, noise(SHAPE, generators([5])), scheduler.timesteps[6:7])
    assert torch.equal(ours, expected)


@pytest.mark.parametrize("scheduler", [*LIBRARY, "unipc", "euler_ancestral", "ddpm"])
def test_the_start_can_be_kept_and_started_from(emoji, scheduler):
    """A start that is kept is one that can be looked at, and its levels are those of the step."""
    cell = Cell("a puppy", sampler=Sampler(scheduler, 6), start=Start("puppy.png", step=5))
    kept = start_latents(emoji, cell, [0, 1])
    assert kept.shape == (2, 8, 16, 16)
    assert float(images.decode(kept, emoji.vae).std()) > 0
    from_noise = Cell("a puppy", sampler=Sampler(scheduler, 6))
    plain = noise((8, 16, 16), generators([0, 1]))
    scale = float(Sampler(scheduler, 6).make(emoji.scheduler).init_noise_sigma)
    assert torch.equal(start_latents(emoji, from_noise, [0, 1]), plain * scale)


# ── sizes ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_picture_may_keep_its_own_size_and_nothing_of_it_is_cut_off(sd1, emoji):
    source, start = Source("emoji"), Start(picture((203, 150)), strength=0.5)
    step = emoji.factor * 2 ** (emoji.levels - 1)
    cell = Cell("a puppy", start=start, size="picture", sampler=Sampler(steps=2))
    assert picture_size(cell, source) == picture_size(cell, emoji) == (150 - 150 % step, 203 - 203 % step)
    assert render(emoji, [cell], [0])[0].pictures.shape[-2:] == picture_size(cell, emoji)
    wide = picture((64, 32))
    wide.paste("red", (0, 0, 4, 32))
    seen = images.to_tensor(wide, (32, 32), cut=False)
    assert float(seen[0, :, 0].mean()) > 0.8, "the left edge is there"
    with pytest.raises(SamplerError, match="size=picture is the size of the picture to start from, and there is none"):
        validate(Cell("a puppy", size="picture"), source)
    with pytest.raises(SamplerError, match=f"8 pixels high and 40 wide, and the smallest .* is {step}"):
        validate(Cell("a puppy", size="picture", start=Start(picture((40, 8)), step=1)), source)


# ── masks ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.turns
@pytest.mark.parity("diffusers", "inpainting, 4 channels", "start.mask", "live")
@pytest.mark.parametrize("strength", [None, 0.6], ids=["from noise", "from the picture"])
@pytest.mark.parametrize("scheduler", ["ddim", "euler", "dpmpp_2m", "heun", "pndm"])
def test_inpainting_is_that_of_the_pipeline(folders, sd1, scheduler, strength):
    parts = open_pipeline(folders["sd1"]).components
    pipe = StableDiffusionInpaintPipeline(**parts, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    warmup = "diffusers" if scheduler == "pndm" and strength else "history"
    start = Start(picture(), strength=strength, warmup=warmup, mask=mask())
    cell = Cell("a puppy", sampler=Sampler(scheduler, 7), guidance=Guidance(5.0, ""), start=start)
    ours = torch.cat([render(sd1, [cell], (seed,))[0].latents for seed in (7, 8)])
    more = {"image": picture(), "mask_image": mask(), "strength": strength or 1.0, "height": 16, "width": 16}
    own = [library_latents(pipe, cell, sd1.towers, (seed,), **more) for seed in (7, 8)]
    close(ours, torch.cat(own), rtol=1e-5)  # of several seeds, theirs encodes the picture with the first alone


@pytest.mark.parametrize("scheduler", ["ddim", "euler_ancestral", "heun", "pndm"])
@pytest.mark.parametrize("strength", [None, 0.6])
def test_black_stays_white_is_drawn_and_between_is_both_to_the_bit(sd1, scheduler, strength):
    sampler = Sampler(scheduler, 6)
    black, white, half = (mask(box) for box in ((0, 0, 0, 0), (0, 0, 16, 16), (0, 0, 8, 16)))
    own = picture_latents(sd1.vae, images.to_tensor(picture()).mul(2).sub(1), generators([0]))
    kept = drawn(sd1, Start(picture(), strength=strength, mask=black), (0,), sampler=sampler)
    assert torch.equal(kept, own)
    anew = drawn(sd1, Start(picture(), strength=strength, mask=white), (0,), sampler=sampler)
    if strength:
        assert torch.equal(anew, drawn(sd1, Start(picture(), strength=strength), (0,), sampler=sampler))
    both = drawn(sd1, Start(picture(), strength=strength, mask=half), (0,), sampler=sampler)
    assert torch.equal(both[..., 4:], own[..., 4:])
    assert not torch.equal(both[..., :4], own[..., :4])


def test_a_white_mask_from_noise_is_noise_to_the_bit(sd1):
    """With the noise handed in: a picture's posterior is drawn before it, from the same seed."""
    own = noise(SHAPE, generators([3]))
    white = Start(latents=own, strength=1.0, mask=mask((0, 0, 16, 16)))
    assert torch.equal(drawn(sd1, white, (0,)), drawn(sd1, Start(latents=own, strength=1.0), (0,)))
    torch.manual_seed(0)
    random = generators([0])
    picture_latents(sd1.vae, images.to_tensor(picture()).mul(2).sub(1), random)
    after = noise(SHAPE, random)
    white = Start(picture(), mask=mask((0, 0, 16, 16)))
    assert torch.equal(drawn(sd1, white, (0,)), drawn(sd1, Start(latents=after), (0,)))


def test_a_mask_is_for_every_kind_of_model(model):
    own = picture_latents(model.vae, images.to_tensor(picture()).mul(2).sub(1), generators([0]))
    made = drawn(model, Start(picture(), mask=mask()), (0,), sampler=Sampler("ddim", 3))
    assert torch.equal(made[..., 4:], own[..., 4:])
    assert not torch.equal(made[..., :4], own[..., :4])


def test_a_mask_is_cut_as_its_picture_is(sd1):
    wide, left = picture((32, 16)), mask((0, 0, 16, 16), (32, 16))
    made = drawn(sd1, Start(wide, strength=0.6, mask=left), (0,))
    own = picture_latents(sd1.vae, images.to_tensor(wide, (16, 16)).mul(2).sub(1), generators([0]))
    assert torch.equal(made[..., 4:], own[..., 4:])
    assert not torch.equal(made[..., :4], own[..., :4])


# ── what is wrong ─────────────────────────────────────────────────────────────────────────────────────────────────

WRONG = {
    "both": (lambda d: Start("puppy.png", step=1, latents=torch.zeros(SHAPE)), "start.picture and start.latents both"),
    "no way in": (lambda d: Start(picture()), "needs one of start.step and start.strength"),
    "mask alone": (lambda d: Start(mask=mask()), "start.mask says which part of a picture is drawn anew"),
    "mask of noise": (lambda d: Start(latents=torch.zeros(SHAPE), mask=mask()), "without start.step or start.strength"),
    "another size": (
        lambda d: Start(picture(), mask=mask(size=(8, 16)), step=1),
        "start.mask is 16 pixels high and 8 wide, and start.picture is 16 high and 16 wide",
    ),
    "another shape": (lambda d: Start(picture(), mask=torch.zeros(1, 16, 16), step=1), "has the shape (3, height"),
    "no mask": (lambda d: Start(picture(), mask="nowhere.png"), "there is no picture 'nowhere.png'"),
    "strength": (lambda d: Start(variation={"seed": 1, "strength": 2}), "start.variation.strength is 2; it has to be"),
    "no seed": (lambda d: Start(variation={"strength": 0.5}), "toward no seed: set start.variation.seed"),
    "seed": (lambda d: Start(variation={"seed": -1, "strength": 0.5}), "start.variation.seed is -1"),
    "spelling": (lambda d: Start(variation={"sed": 1}), "it is written {seed: 7, strength: 0.2}"),
    "two sides": (lambda d: Start(latents=torch.zeros(8, 8)), "start.latents has the shape (8, 8)"),
    "whole": (lambda d: Start(latents=torch.zeros(SHAPE, dtype=torch.int64)), "of the kind torch.int64"),
    "nan": (lambda d: Start(latents=torch.full(SHAPE, torch.nan)), "holds NaN or infinite"),
    "ending": (lambda d: Start(latents=__file__), "its name has to end in .safetensors, .npy, .pt"),
    "not there": (lambda d: Start(latents="nowhere.npy"), "there is no file 'nowhere.npy' in "),
    "number": (lambda d: Start(latents=5), "start.latents is 5; it has to be a path, or a tensor"),
    "damaged": (lambda d: Start(latents=d / "cut.safetensors"), "cannot be read as latents"),
    "objects": (lambda d: Start(latents=d / "objects.npy"), "is no .npy of numbers; numpy.save writes one"),
    "code": (lambda d: Start(latents=d / "code.pt"), "is not plain tensors and is not opened"),
    "two": (lambda d: Start(latents=d / "two.safetensors"), "holds a (1,), b (1,); latents are one tensor, or"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_with_a_start_is_one_line(wrong, tmp_path):
    (tmp_path / "cut.safetensors").write_bytes(b"\0" * 4)
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object))
    torch.save({"x": Image.Image}, tmp_path / "code.pt")
    save_file({"a": torch.zeros(1), "b": torch.zeros(1)}, tmp_path / "two.safetensors")
    make, said = WRONG[wrong]
    with pytest.raises((SamplerError, PictureError), match=re.escape(said)) as caught:
        make(tmp_path)
    assert "\n" not in str(caught.value)


def test_latents_and_masks_of_another_model_are_refused_before_weights(unread):
    source = Source("emoji")
    with pytest.raises(SamplerError, match=r"has the shape \(4, 8, 8\); latents of 'emoji' have 8 channels, such as"):
        validate(Cell("a puppy", start=Start(latents=torch.zeros(SHAPE))), source)
    with pytest.raises(SamplerError, match="size is 128 × 128, and start.latents is that of 64 × 64 pixels"):
        validate(Cell("a puppy", start=Start(latents=torch.zeros(8, 8, 8)), size=128), source)
    masked = Start(latents=torch.zeros(8, 8, 8), step=1, mask=mask())
    with pytest.raises(SamplerError, match="start.mask is 16 pixels high and 16 wide, and start.latents is that of a"):
        validate(Cell("a puppy", start=masked), source)


def test_latents_that_changed_since_are_refused(tmp_path):
    np.save(tmp_path / "in.npy", np.zeros(SHAPE, np.float32))
    start = Start(latents=tmp_path / "in.npy")
    assert start.about(tmp_path) == {"latents": {"content": start.taken["latents"].content, "path": "in.npy"}}
    np.save(tmp_path / "in.npy", np.ones(SHAPE, np.float32))
    with pytest.raises(SamplerError, match="holds other latents than when this was set up"):
        start.taken["latents"].open()


# ── models that take more than latents, and other first stages ────────────────────────────────────────────────────


def with_parts(folders, tmp_path, unet_channels=None, vae=None):
    """A folder of the small SD 1 with a UNet of other channels, or another first stage."""
    folder = shutil.copytree(folders["sd1"], tmp_path / "model")
    torch.manual_seed(1)
    if unet_channels:
        noisy(unet(16, in_channels=unet_channels, out_channels=4)).save_pretrained(folder / "unet")
    if vae is not None:
        shutil.rmtree(folder / "vae")
        noisy(vae).save_pretrained(folder / "vae")
        index = json.loads((folder / "model_index.json").read_text())
        (folder / "model_index.json").write_text(json.dumps({**index, "vae": ["diffusers", type(vae).__name__]}))
    return folder


@pytest.mark.parity(
    *("diffusers", "inpainting, 9 channels", "start.mask", "live"),
    differs="the latents of the masked picture are the mean of what the autoencoder says, not drawn",
)
def test_a_unet_of_inpainting_is_that_of_the_pipeline(folders, tmp_path):
    folder = with_parts(folders, tmp_path, unet_channels=9)
    model = models.load(str(folder), device="cpu")
    pipe = StableDiffusionInpaintPipeline(**open_pipeline(folder).components, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    start = Start(picture(), mask=mask())
    cell = Cell("a puppy", sampler=Sampler("ddim", 6), guidance=Guidance(4.0, ""), start=start)
    given = images.to_tensor(picture()).mul(2).sub(1) * (images.to_tensor(mask().convert("RGB"))[:1] < 0.5)
    masked = picture_latents(model.vae, given)
    random = generators([3])
    picture_latents(model.vae, given, random)  # ours draws the picture's posterior before the noise
    latents = noise(SHAPE, random)
    more = {"image": picture(), "mask_image": mask(), "masked_image_latents": masked, "height": 16, "width": 16}
    expected = library_latents(pipe, cell, model.towers, (3,), latents=latents, **more)
    made = render(model, [cell], [3])[0].latents
    close(made, expected, rtol=1e-5)
    black = dataclasses.replace(cell, start=Start(picture(), mask=mask((0, 0, 0, 0))))
    assert not torch.equal(render(model, [black], [3])[0].latents, made), "the mask is seen"


@pytest.mark.parametrize("channels", [9, 5])
def test_a_single_file_of_such_a_unet_is_its_folder_to_the_bit(folders, tmp_path, channels):
    folder, file = with_parts(folders, tmp_path, unet_channels=channels), tmp_path / "model.safetensors"
    save_file({name: one.contiguous() for name, one in original(open_pipeline(folder), "sd1").items()}, file)
    start = Start(picture(), mask=mask()) if channels == 9 else Start(depth=picture(seed=4))
    cell = Cell("a puppy", sampler=Sampler("ddim", 2), start=start)
    source = Source(str(file), config=str(folders["sd1"]), device="cpu")
    assert source.beside == ("mask" if channels == 9 else "depth")
    with pytest.raises(SamplerError, match="which takes a"):
        validate(dataclasses.replace(cell, start=Start()), source)
    (one,), (other,) = (render(model, [cell], [3]) for model in (source.load(), models.load(str(folder), device="cpu")))
    assert torch.equal(one.latents, other.latents)


def test_a_unet_of_inpainting_can_be_watched_and_guided(folders, tmp_path):
    model = models.load(str(with_parts(folders, tmp_path, unet_channels=9)), device="cpu")
    plain = Cell("a puppy", start=Start(picture(), mask=mask()), sampler=Sampler("ddim", 3), guidance=Guidance(3.0))
    always = {"perturbed_guidance_start": 0.0, "perturbed_guidance_stop": 1.0}
    maps, pag = Attention(maps=True), Guidance(3.0, guider="pag", settings=always)
    cells = [dataclasses.replace(plain, **one) for one in ({}, {"attention": maps}, {"guidance": pag})]
    cells.append(dataclasses.replace(cells[1], guidance=pag))
    as_it_is, watched, guided_, both = (render(model, [one], [0])[0] for one in cells)
    assert watched.maps is not None
    assert both.maps is not None
    torch.testing.assert_close(watched.latents, as_it_is.latents, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(both.latents, guided_.latents, atol=1e-4, rtol=1e-4)
    assert (guided_.latents - as_it_is.latents).abs().max() > 1e-3


@pytest.mark.parity("diffusers", "depth, 5 channels", "start.depth", "live")
def test_a_unet_of_depth_is_that_of_the_pipeline(folders, tmp_path):
    folder = with_parts(folders, tmp_path, unet_channels=5)
    model = models.load(str(folder), device="cpu")
    parts = {k: v for k, v in open_pipeline(folder).components.items() if k in PARTS_OF_DEPTH}
    pipe = StableDiffusionDepth2ImgPipeline(**parts, depth_estimator=None, feature_extractor=None)
    pipe.set_progress_bar_config(disable=True)
    depth = picture(seed=4).convert("L")
    start = Start(picture(), strength=0.7, depth=depth.convert("RGB"))
    cell = Cell("a puppy", sampler=Sampler("ddim", 6), guidance=Guidance(4.0, ""), start=start)
    map_ = torch.from_numpy(np.array(depth)).float()[None] / 255
    more = {"image": picture(), "depth_map": map_, "strength": 0.7}
    expected = library_latents(pipe, cell, model.towers, (3,), **more)
    close(render(model, [cell], [3])[0].latents, expected, rtol=1e-5)
    from_noise = Cell("a puppy", sampler=Sampler("ddim", 2), start=Start(depth=depth))
    assert render(model, [from_noise], [0])[0].latents.shape == (1, *SHAPE)


@pytest.mark.parity("diffusers", "VQ first stage", "model.vae", "live")
def test_a_first_stage_that_quantises_is_that_of_diffusers(folders, tmp_path):
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    vae = VQModel(
        block_out_channels=(8, 8),
        latent_channels=4,
        num_vq_embeddings=32,
        norm_num_groups=4,
        scaling_factor=1.0,
        **blocks,
    )
    folder = with_parts(folders, tmp_path, vae=vae)
    model = models.load(str(folder), device="cpu")
    assert Source(str(folder)).factor == model.factor == 2
    cell = Cell("a puppy", sampler=Sampler("ddim", 4), guidance=Guidance(3.0, ""))
    (made,) = render(model, [cell], [0])
    with torch.no_grad():
        vae.eval().to(memory_format=torch.channels_last)
        close(made.pictures, vae.decode(made.latents).sample.add(1).div(2).clamp(0, 1))
        unquantised = vae.decode(made.latents, force_not_quantize=True).sample.add(1).div(2).clamp(0, 1)
        assert (made.pictures - unquantised).abs().max() > 1e-3, "it quantises"
        given = images.to_tensor(picture()).mul(2).sub(1)
        close(picture_latents(model.vae, given, generators([0])), vae.encode(given[None]).latents)
    started = Cell("a puppy", sampler=Sampler("ddim", 4), start=Start(picture(), strength=0.5))
    assert render(model, [started], [0])[0].pictures.shape == (1, 3, 16, 16)


def test_what_such_a_model_is_not_given_is_one_line_before_weights(folders, tmp_path, unread):
    paint = Source(str(with_parts(folders, tmp_path / "a", unet_channels=9)))
    depth = Source(str(with_parts(folders, tmp_path / "b", unet_channels=5)))
    whole = Start(picture(), mask=mask())
    assert (paint.beside, depth.beside, Source("emoji").beside) == ("mask", "depth", None)
    for source, start, said in (
        (paint, Start(), "is an inpainting model, which takes a picture and a mask beside the latents"),
        (paint, Start(picture(), strength=0.5), "is an inpainting model"),
        (depth, Start(), "is a depth model, which takes a depth map beside the latents: start.depth="),
        (Source("emoji"), Start(depth=picture()), "start.depth is for a depth model, and 'emoji' takes no depth map"),
    ):
        with pytest.raises(SamplerError, match=re.escape(said)):
            validate(Cell("a puppy", start=start), source)
    assert validate(Cell("a puppy", start=whole), paint)
    assert validate(Cell("a puppy", start=Start(depth=picture())), depth)
    with pytest.raises(SamplerError, match="start=inversion runs the UNet of"):
        validate(Cell("a puppy", start=Inversion(picture())), paint)
