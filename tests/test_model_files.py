"""Models as people have them: what a file tells of itself, parts missing or of another kind, hostile folders."""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import types
from contextlib import ExitStack

import diffusers
import onnx
import pytest
import torch
from conftest import open_pipeline
from diffusers.loaders.single_file_utils import infer_diffusers_model_type
from diffusers.utils import logging as diffusers_logging
from huggingface_hub import constants
from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from original_layout import original
from safetensors.torch import load_file, save_file
from tiny import noisy, unet
from transformers import CLIPConfig, CLIPModel, T5Config, T5EncoderModel
from transformers.utils import logging as transformers_logging

from embedlab import Cell, Encoder, Guidance, Sampler, Source, Start, anatomy, images, load, models, render
from embedlab.errors import ModelError, PromptError, SamplerError
from embedlab.models import single_file as checkpoint
from embedlab.models.silence import silence_libraries
from embedlab.structure import onnx_export
from embedlab.sweep.job import Job
from embedlab.validate import validate

BLOCK = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
SECOND = "conditioner.embedders.1.model.ln_final.weight"


@pytest.fixture
def copied(folders, tmp_path):
    """A folder of a small model that may be spoilt: its files are linked, and replaced where they are written."""

    def copy(kind, **edits):
        folder = tmp_path / f"{kind}-{len(list(tmp_path.iterdir()))}"
        shutil.copytree(folders[kind], folder)
        for part, settings in edits.items():
            edit(folder, part, **settings)
        return folder

    return copy


def edit(folder, part, **settings):
    file = {"scheduler": "scheduler/scheduler_config.json", "index": "model_index.json"}.get(
        part, f"{part}/config.json"
    )
    told = json.loads((folder / file).read_text()) | settings
    (folder / file).write_text(json.dumps(told))


@pytest.fixture(scope="session")
def states(folders):
    """The weights of the three kinds under their original names."""
    return {
        kind: {k: v.contiguous().clone() for k, v in original(open_pipeline(folder), kind).items()}
        for kind, folder in folders.items()
    }


@pytest.fixture
def written(states, tmp_path):
    """A single file of a kind, with keys changed."""

    def write(kind, change=lambda state: state, name="model.safetensors"):
        save_file({k: v.clone() for k, v in change(dict(states[kind])).items()}, tmp_path / name)
        return str(tmp_path / name)

    return write


@pytest.fixture
def soon():
    """A hang is a failure."""

    def late(*_):
        raise TimeoutError("it hangs")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(30)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def drawn(source, **settings):
    cell = Cell("a puppy", sampler=Sampler("ddim", 3), guidance=Guidance(4.0), **settings)
    validate(cell, source)
    return render(source.load(), [cell], [0])[0].pictures


def theirs(pipe, **settings):
    pipe.scheduler = diffusers.DDIMScheduler.from_config(pipe.scheduler.config)
    seed = [torch.Generator().manual_seed(0)]
    return pipe(
        "a puppy", num_inference_steps=3, guidance_scale=4.0, generator=seed, output_type="pt", **settings
    ).images


# ── what a file tells of its training ─────────────────────────────────────────────────────────────────────────────

V, EPS = "v_prediction", "epsilon"
SPEC = "modelspec.prediction_type"


@pytest.mark.parametrize(
    ("width", "keys", "metadata", "prediction", "zero", "side", "why"),
    [
        (768, (), {}, EPS, False, 512, "nothing says otherwise, as in Stable Diffusion 1"),
        (768, ("v_pred",), {}, V, False, 512, "the file's key v_pred"),
        (768, (), {SPEC: "v"}, V, False, 512, f"its metadata {SPEC}"),
        (768, (), {SPEC: "epsilon", "modelspec.resolution": "768x768"}, EPS, False, 768, f"its metadata {SPEC}"),
        (1024, (), {SPEC: "epsilon"}, EPS, False, 512, f"its metadata {SPEC}"),
        (1024, (), {SPEC: "v_prediction"}, V, False, 768, f"its metadata {SPEC}"),
        (1024, (), {"modelspec.architecture": "stable-diffusion-v2-512"}, EPS, False, 512, "modelspec.architecture"),
        (1024, (), {"modelspec.architecture": "stable-diffusion-v2-768-v"}, V, False, 768, "modelspec.architecture"),
        (2048, (), {}, EPS, False, 1024, "nothing says otherwise, as in Stable Diffusion XL"),
        (2048, ("v_pred", "ztsnr"), {SPEC: "v"}, V, True, 1024, "the file's key v_pred and its metadata"),
    ],
)
def test_what_a_file_tells_is_believed_and_said(tmp_path, width, keys, metadata, prediction, zero, side, why):
    path = tmp_path / "m.safetensors"
    state = {BLOCK: torch.zeros(320, width), **{key: torch.tensor([]) for key in keys}}
    save_file(state | ({SECOND: torch.zeros(4)} if width == 2048 else {}), path, metadata)
    source = Source(str(path))
    told = source.scheduler
    assert (told["prediction_type"], source.size) == (prediction, side)
    assert bool(told.get("rescale_betas_zero_snr")) == zero == (told.get("timestep_spacing") == "trailing")
    assert why in source.concluded["prediction_type"]
    assert ("zero_snr" in source.concluded) == zero
    assert source.concluded["size"].startswith(f"{side} pixels")


@pytest.mark.parametrize(("step", "prediction", "side"), [(875_000, EPS, 512)])
def test_the_steps_of_an_old_checkpoint_tell_the_base_model(tmp_path, step, prediction, side):
    path = tmp_path / "m.ckpt"
    torch.save({"state_dict": {BLOCK: torch.zeros(320, 1024)}, "global_step": step}, path)
    source = Source(str(path))
    assert (source.scheduler["prediction_type"], source.size) == (prediction, side)
    assert "global_step 875000" in source.concluded["prediction_type"]


def test_a_config_of_the_original_form_beside_a_file_is_read(tmp_path):
    path = tmp_path / "m.safetensors"
    save_file({BLOCK: torch.zeros(320, 1024)}, path)
    (tmp_path / "m.yaml").write_text('model:\n  params:\n    parameterization: "v"\n')
    assert Source(str(path)).concluded["prediction_type"] == "v_prediction (by m.yaml beside it)"


def test_nothing_is_guessed_where_a_file_tells_nothing_or_two_things(tmp_path):
    path = tmp_path / "m.safetensors"
    save_file({BLOCK: torch.zeros(320, 1024)}, path)
    with pytest.raises(ModelError, match="does not say what it predicts.*model.prediction_type=epsilon") as caught:
        Source(str(path)).scheduler  # noqa: B018
    assert "\n" not in str(caught.value)
    assert Source(str(path), prediction_type="v_prediction").size == 768
    assert Source(str(path), prediction_type="epsilon").size == 512
    save_file({BLOCK: torch.zeros(320, 768), "v_pred": torch.tensor([])}, path, {SPEC: "epsilon"})
    with pytest.raises(ModelError, match=r"v_prediction \(the file's key v_pred\) and epsilon \(its metadata"):
        Source(str(path)).scheduler  # noqa: B018
    save_file({BLOCK: torch.zeros(320, 768)}, path, {SPEC: "flow"})
    with pytest.raises(ModelError, match="says modelspec.prediction_type 'flow', which is not known"):
        Source(str(path)).scheduler  # noqa: B018


def test_the_setting_decides_and_draws_as_diffusers_does(copied):
    folder = copied("sd1", scheduler={"clip_sample": False})
    source = Source(str(folder), device="cpu", prediction_type="v_prediction", zero_snr=True)
    pipe = open_pipeline(folder)
    more = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    pipe.scheduler = diffusers.DDIMScheduler.from_config(pipe.scheduler.config, **more)
    torch.testing.assert_close(drawn(source), theirs(pipe), atol=1e-5, rtol=0)
    assert source.concluded["prediction_type"] == "v_prediction (by model.prediction_type)"
    assert source.concluded["zero_snr"] == "true (by model.zero_snr)"
    assert source.identity != Source(str(folder)).identity


def test_what_was_concluded_is_in_explain_and_in_every_picture(embedlab, tmp_path):
    code, out, _ = embedlab("explain", "prompt=a puppy", "model.prediction_type=v_prediction")
    assert code == 0
    assert "model: prediction_type v_prediction (by model.prediction_type)" in out
    code, _, err = embedlab("prompt=a puppy", "seeds=[0]", "hydra.run.dir=out")
    assert code == 0, err
    kept = images.settings_of(tmp_path / "out" / "seed-0.png")["concluded"]
    assert kept["prediction_type"] == "epsilon (by the scheduler's config)"
    assert json.loads((tmp_path / "out" / "result.json").read_text())["concluded"] == kept


# ── parts that ask for something ──────────────────────────────────────────────────────────────────────────────────

MOMENTS = {"latents_mean": [-1.6, 1.1, 0.2, -2.1], "latents_std": [8.4, 5.9, 4.2, 3.9], "scaling_factor": 0.5}


@pytest.mark.turns
@pytest.mark.parametrize("from_picture", [False, True])
def test_latents_with_mean_and_spread_are_diffusers(copied, from_picture):
    folder = copied("sdxl", vae=MOMENTS)
    source, pipe = Source(str(folder), device="cpu"), open_pipeline(folder)
    if not from_picture:
        torch.testing.assert_close(drawn(source), theirs(pipe), atol=1e-5, rtol=0)
        return
    pipe = diffusers.StableDiffusionXLImg2ImgPipeline(**pipe.components)
    pipe.set_progress_bar_config(disable=True)
    start = Start("puppy.png", strength=0.7)
    picture = images.to_tensor(start.open(), (16, 16))[None]
    torch.testing.assert_close(drawn(source, start=start), theirs(pipe, image=picture, strength=0.7), atol=1e-4, rtol=0)


@pytest.mark.parametrize("from_picture", [False, True])
def test_a_tiny_autoencoder_is_diffusers(copied, from_picture):
    folder = copied("sd1", scheduler={"clip_sample": False})
    shutil.rmtree(folder / "vae")
    torch.manual_seed(1)
    blocks = {"encoder_block_out_channels": (8, 8), "decoder_block_out_channels": (8, 8)}
    counts = {"num_encoder_blocks": (1, 1), "num_decoder_blocks": (1, 1)}
    diffusers.AutoencoderTiny(**blocks, **counts).save_pretrained(folder / "vae")
    edit(folder, "index", vae=["diffusers", "AutoencoderTiny"])
    source, pipe = Source(str(folder), device="cpu"), open_pipeline(folder)
    if not from_picture:
        torch.testing.assert_close(drawn(source), theirs(pipe), atol=1e-5, rtol=0)
        halves = [anatomy(source).part(f"vae.{half}").whole for half in ("encoder", "decoder")]
        assert sum(half.parameters for half in halves) == sum(p.numel() for p in pipe.vae.parameters())
        assert [half.output for half in halves] == [(1, 4, 8, 8), (1, 3, 16, 16)]
        return
    pipe = diffusers.StableDiffusionImg2ImgPipeline(**pipe.components, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    start = Start("puppy.png", strength=0.7)
    picture = images.to_tensor(start.open(), (16, 16))[None]
    torch.testing.assert_close(drawn(source, start=start), theirs(pipe, image=picture, strength=0.7), atol=1e-4, rtol=0)


@pytest.mark.turns
def test_a_unet_that_was_taught_the_guidance_scale_is_told_it_as_diffusers_does(copied):
    folder = copied("sd1", scheduler={"clip_sample": False})
    torch.manual_seed(0)
    noisy(unet(16, time_cond_proj_dim=8)).save_pretrained(folder / "unet")
    source = Source(str(folder), device="cpu")
    torch.testing.assert_close(drawn(source), theirs(open_pipeline(folder)), atol=1e-5, rtol=0)
    seen = []
    with source.load().unet.register_forward_pre_hook(lambda _, given: seen.append(len(given[0]))):
        drawn(source)
    for prompt in ("a puppy :2", "a puppy AND a cat"):
        with pytest.raises(PromptError, match="from an unconditional one"):
            validate(Cell(prompt, encoder=Encoder(language="a1111")), source)
    assert {anatomy(source).part("unet").rows} == set(seen), "no unconditional half, and none is counted"
    module, inputs = next(
        rest for part, *rest in onnx_export.parts_of(source.load(), anatomy(source)) if part == "unet"
    )
    path, far = onnx_export.exported("unet", module, inputs, folder)
    assert "timestep_cond" in [one.name for one in onnx.load(path).graph.input]
    assert far < 1e-4
    cells = [Cell("a puppy", sampler=Sampler("ddim", 2), guidance=Guidance(scale)) for scale in (1.0, 4.0)]
    together = render(source.load(), cells, [0])
    assert not torch.equal(together[0].pictures, together[1].pictures)
    for cell, one in zip(cells, together, strict=True):
        torch.testing.assert_close(render(source.load(), [cell], [0])[0].pictures, one.pictures, atol=1e-5, rtol=0)
    with pytest.raises(SamplerError, match="takes the guidance scale as a number and no negative prompt"):
        validate(Cell("a puppy", guidance=Guidance(4.0, negative="a cat")), source)


@pytest.mark.parametrize(
    ("kind", "edits", "message"),
    [
        ("sd1", {"unet": {"in_channels": 8}}, "takes 8 channels where latents have 4: a model that edits pictures"),
        ("sd1", {"unet": {"out_channels": 8}}, "returns 8 channels for 4"),
        ("sd1", {"unet": {"class_embed_type": "projection"}}, "asks for a class embedding of kind 'projection'"),
        ("sd1", {"unet": {"num_class_embeds": 1000}}, "one of 1000 classes or noise levels, as upscalers are"),
        ("sd1", {"unet": {"encoder_hid_dim_type": "text_proj"}}, "hidden states of kind 'text_proj'"),
        ("sd1", {"unet": {"addition_embed_type": "image"}}, "an additional embedding of kind 'image'"),
        ("sd1", {"unet": {"_class_name": "UNet3DConditionModel"}}, "is a UNet3DConditionModel; embedlab runs a UNet2D"),
        ("sd1", {"unet": {"cross_attention_dim": 24}}, "asks for hidden states 24 wide, and its text encoders make 16"),
        ("sdxl", {"unet": {"cross_attention_dim": 64}}, r"64 wide, and its text encoders make 16 \+ 24"),
        ("sdxl", {"unet": {"projection_class_embeddings_input_dim": 44}}, "asks for 44 numbers of text and sizes"),
        ("sdxl", {"index": {"text_encoder": [None, None]}}, "come from the two text encoders of SDXL"),
        ("sdxl", {"index": {"text_encoder": [None, None], "requires_aesthetics_score": True}}, "the refiner of SDXL"),
        ("sd1", {"unet": {"sample_size": [8, 16]}}, r"has the sample_size \[8, 16\]: embedlab needs one side"),
        ("sd1", {"vae": {"shift_factor": 0.1159}}, "has shift_factor 0.1159, as those of SD 3 and Flux"),
        ("sd1", {"vae": MOMENTS}, "latents_mean and latents_std, which only pipelines of SDXL know"),
        ("sdxl", {"vae": {"latents_mean": [0.0]}}, r"has latents_mean \[0.0\] and latents_std None; both have to be 4"),
        (
            "sd1",
            {"vae": {"_class_name": "AsymmetricAutoencoderKL"}},
            "the VAE of .* is a Asym.*; embedlab decodes with AutoencoderKL",
        ),
        (
            "sd1",
            {"scheduler": {"_class_name": "EDMEulerScheduler"}},
            "a EDMEulerScheduler: its UNet was trained on noise",
        ),
        ("sd1", {"scheduler": {"use_flow_sigmas": True}}, "one with use_flow_sigmas: its UNet was trained on noise"),
        ("sd1", {"scheduler": {"prediction_type": "flow_prediction"}}, "says prediction_type 'flow_prediction'"),
        (
            "sd1",
            {"scheduler": {"num_train_timesteps": 10**9}},
            "says num_train_timesteps 1000000000, which no model has",
        ),
        ("sd1", {"index": {"text_encoder": ["transformers", "T5EncoderModel"]}}, "is a T5EncoderModel; embedlab edits"),
        ("sd1", {"index": {"transformer": ["diffusers", "X"]}}, "it has no UNet conditioned on CLIP alone"),
        ("sd1", {"text_encoder": {"vocab_size": 100}}, "knows 49408 tokens, and the encoder has rows for 100"),
        ("sd1", {"text_encoder": {"max_position_embeddings": 16}}, "has 16 positions; a window has 77"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " not in value else None,
)
def test_what_cannot_be_given_is_refused_before_weights_are_read(copied, kind, edits, message):
    folder = copied(kind, **edits)
    with pytest.raises(ModelError, match=message) as caught:
        validate(Cell("a puppy"), Source(str(folder), device="cpu"))
    assert "\n" not in str(caught.value)
    with pytest.raises(ModelError, match=message):
        load(str(folder), device="cpu")


# ── files and folders as people have them ─────────────────────────────────────────────────────────────────────────


def same(a, b) -> bool:
    parts = [
        (a.unet, b.unet),
        (a.vae, b.vae),
        *((x.encoder, y.encoder) for x, y in zip(a.towers, b.towers, strict=True)),
    ]
    return all(all(torch.equal(value, y.state_dict()[key]) for key, value in x.state_dict().items()) for x, y in parts)


def test_a_variant_is_read_where_it_is_asked_for_and_named_where_it_is_not(copied, sd1):
    folder = copied("sd1")
    for part in ("unet", "vae", "text_encoder"):
        (file,) = (folder / part).glob("*.safetensors")
        file.rename(file.with_name(file.name.replace(".safetensors", ".fp16.safetensors")))
    with pytest.raises(
        ModelError, match=r"has weights only as a variant: .*\.fp16\.safetensors; set model.variant=fp16"
    ):
        validate(Cell("a puppy"), Source(str(folder)))
    with pytest.raises(ModelError, match="has no weights of variant non_ema"):
        validate(Cell("a puppy"), Source(str(folder), variant="non_ema"))
    assert same(load(str(folder), device="cpu", variant="fp16"), sd1)
    (file,) = (folder / "vae").glob("*.safetensors")
    file.rename(file.with_name(file.name.replace(".fp16", "")))
    assert same(load(str(folder), device="cpu", variant="fp16"), sd1), "a part without the variant is read as it is"


def test_endings_in_capitals_and_keys_without_text_model_are_read(folders, written, kind, model):
    def bare(state):
        return {key.replace("transformer.text_model.", "transformer."): value for key, value in state.items()}

    assert same(load(written(kind, bare, "m.SAFETENSORS"), config=str(folders[kind]), device="cpu"), model)


def test_callbacks_beside_the_weights_are_left_aside_and_not_run(folders, states, sd1, tmp_path, monkeypatch):
    ran = []

    class ModelCheckpoint:
        def __init__(self):
            self.best = 1

        def __setstate__(self, state):
            ran.append(state)

    name = "pytorch_lightning.callbacks.model_checkpoint"
    for n in range(1, 4):
        part = ".".join(name.split(".")[:n])
        monkeypatch.setitem(sys.modules, part, types.ModuleType(part))
    ModelCheckpoint.__module__, ModelCheckpoint.__qualname__ = name, "ModelCheckpoint"
    sys.modules[name].ModelCheckpoint = ModelCheckpoint
    path = tmp_path / "m.ckpt"
    kept = {"state_dict": states["sd1"], "callbacks": {ModelCheckpoint: ModelCheckpoint()}, "global_step": 3}
    torch.save(kept, path)
    for n in range(1, 4):
        monkeypatch.delitem(sys.modules, ".".join(name.split(".")[:n]))
    assert same(load(str(path), config=str(folders["sd1"]), device="cpu"), sd1)
    assert not ran


def test_parts_that_a_file_lacks_come_from_where_the_settings_say(folders, written, states, kind, model, tmp_path):
    path = written(kind, lambda s: {k: v for k, v in s.items() if k.startswith("model.")})
    common = {"config": str(folders[kind]), "device": "cpu"}
    with pytest.raises(ModelError, match="has no vae; it holds unet; name one: model.vae=PATH"):
        validate(Cell("a puppy"), Source(path, **common))
    with pytest.raises(ModelError, match="has no text encoder; it holds unet; name one: model.text_encoder=PATH"):
        validate(Cell("a puppy"), Source(path, vae=str(folders[kind]), **common))
    bare = {k.removeprefix("first_stage_model."): v for k, v in states[kind].items() if k.startswith("first_stage")}
    save_file({k: v.clone() for k, v in bare.items()}, tmp_path / "vae.safetensors")
    for vae in (folders[kind], folders[kind] / "vae", tmp_path / "vae.safetensors"):
        source = Source(path, vae=str(vae), text_encoder=str(folders[kind]), **common)
        validate(Cell("a puppy"), source)
        assert same(source.load(), model)
    assert source.concluded["vae"].endswith("(by model.vae)")


def test_a_part_may_be_replaced_in_a_folder(folders, copied, sd1, tmp_path):
    folder = copied("sd1")
    shutil.rmtree(folder / "vae")
    shutil.rmtree(folder / "text_encoder")
    source = Source(
        str(folder), device="cpu", vae=str(folders["sd1"] / "vae"), text_encoder=str(folders["sd1"] / "text_encoder")
    )
    validate(Cell("a puppy"), source)
    assert same(source.load(), sd1)
    for setting in ("vae", "text_encoder"):
        with pytest.raises(ModelError, match=f"there is no model.{setting} 'nowhere/at/all'"):
            Source(str(folder), **{setting: "nowhere/at/all"})


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ("model.diffusion_model.out.2.bias", "the part 'unet' of the file .* lacks 1 weights: conv_out.bias"),
        (
            "first_stage_model.decoder.conv_out.bias",
            "the part 'vae' of the file .* lacks 1 weights: decoder.conv_out.bias",
        ),
        (
            "cond_stage_model.transformer.text_model.final_layer_norm.bias",
            "the part 'text_encoder' of the file .* lacks 1 weights: final_layer_norm.bias",
        ),
    ],
)
def test_a_weight_that_a_file_lacks_is_named(folders, written, gone, message):
    path = written("sd1", lambda state: {key: value for key, value in state.items() if key != gone})
    with pytest.raises(ModelError, match=message) as caught:
        load(path, config=str(folders["sd1"]), device="cpu")
    assert "\n" not in str(caught.value)


def test_other_single_files_are_named(folders, written, tmp_path):
    path = tmp_path / "other.safetensors"
    for key, message in {
        "double_blocks.0.img_attn.qkv.weight": "holds a Flux",
        "lora_unet_mid.lora_up.weight": "holds a LoRA",
        "something.else": "is not in the original layout of Stable Diffusion 1, 2 or XL",
    }.items():
        save_file({key: torch.zeros(4, 4)}, path)
        os.utime(path, ns=(1, hash(key) % 10**9))
        with pytest.raises(ModelError, match=message):
            Source(str(path)).folder  # noqa: B018
    refiner = {BLOCK.replace("blocks.1.1", "blocks.4.1"): torch.zeros(768, 1280)}
    save_file({**refiner, "conditioner.embedders.0.model.ln_final.weight": torch.zeros(4)}, path)
    with pytest.raises(ModelError, match="is the refiner of SDXL"):
        Source(str(path)).folder  # noqa: B018
    edm = written("sdxl", lambda state: {**state, "edm_mean": torch.zeros(4), "edm_std": torch.ones(4)})
    with pytest.raises(ModelError, match="noise of another form .EDM, by its key edm_mean"):
        validate(Cell("a puppy"), Source(edm, config=str(folders["sdxl"])))
    first = "model.diffusion_model.input_blocks.0.0.weight"
    eight = written("sd1", lambda s: {**s, first: torch.cat([s[first], s[first]], 1)})
    with pytest.raises(ModelError, match="takes 8 channels where latents have 4: a model that edits pictures by"):
        validate(Cell("a puppy"), Source(eight, config=str(folders["sd1"])))


@pytest.mark.parametrize("channels", [5, 9])
def test_files_of_sd_2_for_depth_and_inpainting_predict_noise_as_published_and_others_what_they_say(tmp_path, channels):
    """diffusers takes a v2 file of 9 channels as stable-diffusion-2-inpainting, whose scheduler has epsilon."""
    first, path = "model.diffusion_model.input_blocks.0.0.weight", tmp_path / "m.safetensors"
    tensors = {BLOCK: torch.zeros(320, 1024), first: torch.zeros(320, channels, 3, 3)}
    save_file(tensors, path)
    marked = {**tensors, BLOCK.replace("blocks.1.1", "blocks.2.1"): torch.zeros(320, 1024)}
    assert infer_diffusers_model_type(marked) == {5: "v2", 9: "inpainting_v2"}[channels]
    published = Source(str(path))
    why = f"epsilon (by its UNet of {channels} channels, trained on from 2.0-base)"
    assert published.concluded["prediction_type"] == why
    assert (published.scheduler["prediction_type"], published.size) == (EPS, 512)
    assert published.beside == {5: "depth", 9: "mask"}[channels]
    save_file({**tensors, "v_pred": torch.tensor([])}, path)
    os.utime(path, ns=(1, 1))
    assert Source(str(path)).concluded["prediction_type"] == "v_prediction (by the file's key v_pred)"
    header = checkpoint.Header({first: (320, channels, 3, 3)})
    assert checkpoint.predictions(path, header, "sd1") == {}


def test_the_averaged_copy_of_a_unet_is_taken_where_it_is_asked_for(written, folders):
    """As CompVis' ema_scope: what a file calls model_ema."""

    def with_copy(state):
        names = [key for key in state if key.startswith("model.diffusion_model.")]
        return state | {f"model_ema.{key[6:].replace('.', '')}": 1.01 * state[key] for key in names}

    path, config = written("sd1", with_copy), str(folders["sd1"])
    plain, averaged = (Source(path, config=config, ema=ema) for ema in (False, True))
    assert plain.identity != averaged.identity
    pairs = zip(plain.load().unet.parameters(), averaged.load().unet.parameters(), strict=True)
    assert all(torch.equal(1.01 * one, other) for one, other in pairs)
    with pytest.raises(ModelError, match="model.ema chooses among the weights of a single file"):
        Source(config, ema=True)
    with pytest.raises(ModelError, match=r"model.ema is true, and '.*' holds no averaged copy of its UNet"):
        validate(Cell("a puppy"), Source(written("sd1", name="bare.safetensors"), config=config, ema=True))


def test_a_part_from_the_hub_is_found_in_its_cache(folders, copied, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    for name, inner in (("one/model", "vae"), ("one/vae", "")):
        cache = tmp_path / "hub" / f"models--{name.replace('/', '--')}"
        (cache / "refs").mkdir(parents=True)
        (cache / "refs" / "main").write_text("abc")
        target = cache / "snapshots" / "abc" / inner
        shutil.copytree(folders["sd1"] / "vae", target)
        if inner:
            shutil.copy(folders["sd1"] / "model_index.json", target.parent)
        source = Source(str(folders["sd1"]), vae=name)
        assert source.home("vae") == (name, inner)
        assert source.part("vae")["latent_channels"] == 4
        assert source.identity[-3:-1] == [name, "abc"]
    with pytest.raises(ModelError, match="the hub cannot be reached and 'no/such' is not in its cache"):
        Source(str(folders["sd1"]), vae="no/such").part("vae")


# ── identity ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_weight_counts_for_the_identity_of_a_model(copied):
    folder = copied("sd1")
    before = Source(str(folder)).identity
    (file,) = (folder / "text_encoder").glob("*.safetensors")
    state = load_file(file)
    table = next(key for key in state if "token_embedding" in key)
    state[table][6829, 3] += 1e-3  # one number of 790,000
    save_file(state, file, {"format": "pt"})
    after = Source(str(folder)).identity
    assert [a.split()[0] for a, b in zip(before, after, strict=True) if a != b] == [str(file.relative_to(folder))]


def test_a_hash_costs_once_and_is_of_the_file_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setenv("EMBEDLAB_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "weights.safetensors"
    path.write_bytes(bytes(checkpoint.LARGE))
    os.utime(path, (1, 1))
    first, read = checkpoint.hash_of(path), []
    own = checkpoint.hashlib.file_digest
    monkeypatch.setattr(checkpoint.hashlib, "file_digest", lambda *given: read.append(given) or own(*given))
    assert checkpoint.hash_of(path) == first
    assert not read, "it is remembered"
    path.write_bytes(bytes(checkpoint.LARGE - 1) + b"1")
    os.utime(path, (2, 2))
    assert checkpoint.hash_of(path) != first
    (note,) = (tmp_path / "cache" / "hashes").iterdir()
    for damage in ("{", "[1, 2]", json.dumps([*json.loads(note.read_text())[:-1], "no hash"])):
        note.write_text(damage)
        assert checkpoint.hash_of(path) != first
    assert len(read) == 4
    path.write_bytes(bytes(checkpoint.LARGE))
    assert checkpoint.hash_of(path) == first
    assert checkpoint.hash_of(path) == first
    assert len(read) == 6, "what was written a moment ago may be written again without a new time"


def test_a_cache_that_cannot_be_written_harms_nothing(tmp_path, monkeypatch):
    (tmp_path / "cache").write_text("a file")
    monkeypatch.setenv("EMBEDLAB_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "w.safetensors"
    path.write_bytes(bytes(checkpoint.LARGE))
    os.utime(path, (1, 1))
    assert checkpoint.hash_of(path) == checkpoint.hash_of(path)


def test_scores_of_another_scorer_are_another_result(folders, tmp_path):
    scorer = tmp_path / "scorer"
    scorer.mkdir()
    (scorer / "model.safetensors").write_bytes(b"one")

    def key():
        return Job(Source(str(folders["sd1"]), scorer=str(scorer)), Cell("a puppy"), (0,), tmp_path).key

    before = key()
    assert before == key()
    (scorer / "model.safetensors").write_bytes(b"two")
    assert key() != before


@pytest.fixture
def scorer(tmp_path):
    """A folder of a CLIP model, in small."""
    folder = tmp_path / "scorer"
    towers = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = towers | {"vocab_size": 49408, "bos_token_id": 49406, "eos_token_id": 49407, "pad_token_id": 1}
    config = CLIPConfig(text_config=text, vision_config=towers | {"image_size": 16, "patch_size": 8}, projection_dim=8)
    CLIPModel(config).save_pretrained(folder)
    models.tokenizer().save_pretrained(folder)
    return folder


def test_a_scorer_is_whole_and_made_of_files(folders, scorer, soon):
    assert load(str(folders["sd1"]), device="cpu", scorer=str(scorer)).scorer
    state = load_file(scorer / "model.safetensors")
    state.pop("text_projection.weight")
    save_file(state, scorer / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match="lacks 1 weights of a CLIP model: text_projection.weight"):
        load(str(folders["sd1"]), device="cpu", scorer=str(scorer), dtype="float32")
    (scorer / "model.safetensors").unlink()
    os.mkfifo(scorer / "model.safetensors")
    with pytest.raises(ModelError, match="is no regular file"):
        load(str(folders["sd1"]), device="cpu", scorer=str(scorer), dtype="float32")


# ── silence ───────────────────────────────────────────────────────────────────────────────────────────────────────

NOTEBOOK = """
import sys, types
sys.modules |= {"ipykernel": types.ModuleType("ipykernel"), "ipykernel.zmqshell": types.ModuleType("zmqshell")}
sys.modules["IPython"] = types.SimpleNamespace(get_ipython=object, display=None)
sys.modules["ipywidgets"] = None
"""
LOAD = """
import logging, sys, warnings
import embedlab as lab
lab.load("emoji")
levels = [logging.getLogger(name).level for name in ("transformers", "diffusers", "huggingface_hub")]
filters = list(warnings.filters)
lab.load("emoji", scorer=sys.argv[1])
lab.Source("emoji", dtype="float32").towers()
import diffusers.utils.logging, huggingface_hub.utils, transformers.utils.logging
assert levels == [logging.WARNING] * 3, levels
assert warnings.filters == filters
assert diffusers.utils.logging.is_progress_bar_enabled()
assert not huggingface_hub.utils.are_progress_bars_disabled()
"""


@pytest.mark.turns
@pytest.mark.parametrize("before", ["", NOTEBOOK], ids=["a program", "a notebook without ipywidgets"])
def test_loading_prints_nothing_and_leaves_the_libraries_as_they_were(scorer, before):
    done = subprocess.run([sys.executable, "-c", before + LOAD, str(scorer)], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_what_one_has_set_oneself_is_given_back_after_an_error_too():
    mine, bars = [logging.getLogger(name) for name in ("transformers", "diffusers")], []
    with ExitStack() as back:
        for logger, level in zip(mine, (logging.DEBUG, logging.CRITICAL), strict=True):
            back.callback(logger.setLevel, logger.level)
            logger.setLevel(level)
        back.callback(transformers_logging.set_tqdm_hook, None)
        transformers_logging.set_tqdm_hook(lambda factory, args, kwargs: bars.append(args))
        back.callback(diffusers_logging.enable_progress_bar)
        diffusers_logging.disable_progress_bar()
        back.callback(enable_progress_bars)
        disable_progress_bars()
        with pytest.raises(ZeroDivisionError), silence_libraries():
            assert [logger.level for logger in mine] == [logging.ERROR, logging.CRITICAL]
            assert list(transformers_logging.tqdm([1, 2])) == [1, 2]
            1 / 0  # noqa: B018
        assert [logger.level for logger in mine] == [logging.DEBUG, logging.CRITICAL]
        assert not diffusers_logging.is_progress_bar_enabled()
        assert are_progress_bars_disabled()
        transformers_logging.tqdm([3])
        assert bars == [([3],)], "the bar is one's own again, and was not asked meanwhile"


# ── hostile folders ───────────────────────────────────────────────────────────────────────────────────────────────

DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("model_index.json", DEEP, "model_index.json' cannot be read as JSON: it is nested too deeply"),
        ("unet/config.json", '{"a": ' * 100_000, "config.json' cannot be read as JSON"),
        ("unet/config.json", b"\xff\xfe{}", "config.json' cannot be read as JSON"),
        ("tokenizer/vocab.json", DEEP, "the part 'tokenizer' of the model .* cannot be read"),
        ("tokenizer/tokenizer_config.json", DEEP, "the part 'tokenizer' of the model .* cannot be read"),
        ("concepts.json", "[1]", "concepts.json' holds 1, which is no word"),
        ("vae/diffusion_pytorch_model.safetensors", b"\xff" * 100, "the part 'vae' of the model .* cannot be read"),
    ],
    ids=lambda value: value if isinstance(value, str) and "/" in value and " " not in value else None,
)
def test_a_damaged_small_file_is_one_line(copied, soon, file, text, message):
    folder = copied("sd1")
    (folder / file).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ModelError, match=message) as caught:
        load(str(folder), device="cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("part", "settings", "message"),
    [
        (
            "unet",
            {"sample_size": "big"},
            "the part 'unet' of .* says sample_size 'big'; it has to be a whole number or",
        ),
        ("unet", {"block_out_channels": {"a": 1}}, "says block_out_channels {'a': 1}; it has to be a list"),
        ("unet", {"block_out_channels": [8, "16"]}, "says block_out_channels .8, '16'.; it has to be a list"),
        ("unet", {"in_channels": "4"}, "says in_channels '4'; it has to be a whole number"),
        ("unet", {"in_channels": True}, "says in_channels True; it has to be a whole number"),
        ("unet", {"layers_per_block": 10**400}, "says layers_per_block 1000.*, which no model has"),
        ("unet", {"cross_attention_dim": {}}, "says cross_attention_dim {}; it has to be"),
        ("unet", {"down_block_types": ["Nothing", "Else"]}, "the part 'unet' of the model .* cannot be read"),
        ("vae", {"block_out_channels": [8] * 1000}, "says block_out_channels .*, which no model has"),
        ("vae", {"latent_channels": None}, "where latents have None"),
        ("vae", {"scaling_factor": "a\u0000b"}, "says scaling_factor 'a.x00b'; it has to be a number"),
        ("vae", {"latents_mean": "x", "latents_std": "y"}, "says latents_mean 'x'; it has to be a list"),
        ("text_encoder", {"hidden_size": "wide"}, "says hidden_size 'wide'; it has to be a whole number"),
        ("text_encoder", {"num_hidden_layers": []}, "says num_hidden_layers .*; it has to be a whole number"),
        ("text_encoder", {"hidden_act": "\u0000"}, "the part 'text_encoder' of the model .* cannot be read"),
        ("scheduler", {"beta_start": "low"}, "says beta_start 'low'; it has to be a number"),
        ("scheduler", {"num_train_timesteps": {}}, "says num_train_timesteps {}; it has to be a whole number"),
        ("scheduler", {"prediction_type": ["v"]}, "says prediction_type .'v'."),
        ("index", {"unet": 5}, "model_index.json of .* says unet 5; it has to be .library, class."),
        ("index", {"text_encoder": {"a": "b"}}, "says text_encoder {'a': 'b'}; it has to be .library, class."),
    ],
    ids=lambda value: value if isinstance(value, str) and " " not in value else None,
)
def test_a_setting_of_another_kind_is_one_line(copied, soon, part, settings, message):
    folder = copied("sd1", **{part: settings})
    with pytest.raises(ModelError, match=message) as caught:
        load(str(folder), device="cpu")
    assert "\n" not in str(caught.value)


WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.mark.parametrize(
    "file",
    ["model_index.json", "unet/config.json", "tokenizer/vocab.json", f"unet/{WEIGHTS}", "vae/more.safetensors"],
)
@pytest.mark.parametrize("what", ["a pipe", "a device", "a folder", "nothing"])
def test_what_is_no_file_is_refused_and_not_waited_for(copied, soon, file, what):
    folder = copied("sd1")
    place = folder / file
    place.unlink(missing_ok=True)
    if what == "a pipe":
        os.mkfifo(place)
    elif what == "a device":
        place.symlink_to("/dev/zero")
    elif what == "nothing":
        place.symlink_to(folder / "nowhere")
    else:
        place.mkdir()
    if what == "a folder" and "more" in file:  # it is nothing that anybody opens
        assert load(str(folder), device="cpu")
        return
    with pytest.raises(ModelError) as caught:
        load(str(folder), device="cpu")
    assert "\n" not in str(caught.value)


def test_an_index_of_shards_names_files_beside_it_only(copied, soon):
    folder = copied("sd1")
    index = folder / "unet" / "diffusion_pytorch_model.safetensors.index.json"
    for name in ("../../elsewhere.safetensors", "a\x00b", 5, "not-there.safetensors"):
        index.write_text(json.dumps({"metadata": {}, "weight_map": {"conv_in.weight": name}}))
        with pytest.raises(ModelError, match="names files that are not beside it"):
            load(str(folder), device="cpu")


@pytest.mark.parametrize("name", ["a\x00b", "~nosuchuser/model", "\udcff\udcfe", "a/b\x00", "", "~"])
def test_names_that_no_file_can_have_are_one_line(name, soon):
    for settings in ({"name": name}, {"vae": name}, {"text_encoder": name}):
        with pytest.raises(ModelError) as caught:
            Source(**settings).checked  # noqa: B018
        assert "\n" not in str(caught.value)


# ── pipelines ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_encoders_that_are_not_clips_are_refused_at_once(folders):
    pipe = open_pipeline(folders["sd1"])
    five = T5EncoderModel(T5Config(vocab_size=32, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2))
    parts = {"tokenizer": pipe.tokenizer, "text_encoder": pipe.text_encoder}
    short = pipe.tokenizer.__class__.from_pretrained(models.SHIPPED["emoji"] / "tokenizer")
    short.add_tokens(["<more>"])
    for change, message in (
        ({"text_encoder": five}, "the text encoder is a T5EncoderModel; embedlab edits CLIPTextModel"),
        ({"text_encoder_2": five, "tokenizer_2": pipe.tokenizer}, "the text encoder is a T5EncoderModel"),
        ({"tokenizer": object()}, "the tokenizer is a object; CLIP's text encoders take a CLIPTokenizer"),
        ({"tokenizer": short}, "knows 49409 tokens, and the encoder has rows for 49408"),
        ({"transformer": None}, "has a transformer, which is conditioned in another way than a UNet"),
        ({"text_encoder_3": None}, "has a text_encoder_3"),
        ({"text_encoder": None}, "has no text encoders"),
    ):
        with pytest.raises(ModelError, match=message) as caught:
            models.text_encoders_of(types.SimpleNamespace(**parts | change))
        assert "\n" not in str(caught.value)
    for nothing in (None, "emoji", 5):
        with pytest.raises(ModelError, match="has no text encoders"):
            models.text_encoders_of(nothing)


@pytest.mark.turns
@pytest.mark.parametrize("kind", ["sd1", "sd2", "sdxl"])
def test_the_anatomy_of_a_single_file_says_what_it_was_taken_for(written, folders, kind):
    """The widths of these are those of no layout, so that a folder describes them."""
    told = {"prediction_type": "epsilon"} if kind == "sd2" else {}
    seen = anatomy(Source(written(kind), config=str(folders[kind]), **told))
    assert seen.parts == anatomy(Source(str(folders[kind]))).parts
    (file,) = next(one.files for one in seen.components if one.name == "file")
    assert (file.path.name, file.dtype) == ("model.safetensors", "F32")
    assert any(line.startswith("prediction_type: epsilon") for line in seen.notices)
