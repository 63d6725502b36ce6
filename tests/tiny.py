"""Stable Diffusion 1, 2 and XL in small: real classes, random weights from a fixed seed; an operator of each kind."""

import shutil
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from embedlab import (
    Add,
    Blend,
    Freeze,
    Interpolate,
    Noise,
    Normalise,
    Permute,
    Place,
    ProjectOut,
    Replace,
    Reverse,
    Rotate,
    Scale,
    Shift,
    Shuffle,
    Stretch,
    Swap,
    models,
)

PROMPT = "a picture of a puppy and a cat"
OPERATORS = [
    *(Interpolate("puppy", "skunk", 0.5), Replace("puppy", "fox"), Add("puppy", "fox", 0.3), Scale("puppy", 2.0)),
    *(Noise("puppy", 0.5), Normalise("puppy"), ProjectOut("puppy", "cat"), Rotate("puppy", 30)),
    *(Shift("puppy", 1.5), Place("puppy", 9), Freeze(at=2), Stretch(factor=2), Swap("puppy", "cat"), Reverse()),
    *(Permute({"role": "words"}, [1, 0, 2, 3, 4, 5, 6, 7]), Shuffle(), Blend(["a fox", "a skunk"], [0.3, 0.2])),
    *(Scale("puppy", 1.3, stage="hidden"), Noise({"role": "all"}, 0.1, stage="pooled")),
]

NOISE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
}
NOISE |= {"steps_offset": 1}
KINDS = ("sd1", "sd2", "sdxl")


def text_config(
    width: int, projection: int, act: str = "quick_gelu", layers: int = 3, eos: int = 49407
) -> CLIPTextConfig:
    """A text encoder with the true vocabulary and window."""
    return CLIPTextConfig(
        vocab_size=49408,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=2,
        max_position_embeddings=77,
        hidden_act=act,
        projection_dim=projection,
        bos_token_id=49406,
        eos_token_id=eos,
        pad_token_id=1,
    )


def unet(cross: int, **more: object) -> UNet2DConditionModel:
    """Two levels, cross-attention at one."""
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=cross,
        attention_head_dim=2,
        norm_num_groups=4,
        **more,
    )


def vae() -> AutoencoderKL:
    """Factor 2, four latent channels."""
    return AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=16,
    )


def noisy(module: torch.nn.Module) -> torch.nn.Module:
    """Norms and biases off their neutral start, and token rows as different as trained ones are."""
    with torch.no_grad():
        for name, p in module.named_parameters():
            if p.ndim == 1:
                p.add_(0.1 * torch.randn_like(p))
            elif "embedding" in name:
                p.mul_(10)
    return module.eval()


def make_pipeline(kind: str):
    """A Stable Diffusion of this kind in small, from a fixed seed."""
    torch.manual_seed(0)
    first = models.tokenizer()
    if kind == "sdxl":
        second = models.tokenizer().__class__.from_pretrained(models.SHIPPED["emoji"] / "tokenizer", pad_token="!")
        extra = {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 4,
            "projection_class_embeddings_input_dim": 24 + 24,
        }
        return StableDiffusionXLPipeline(
            vae=noisy(vae()),
            text_encoder=noisy(CLIPTextModel(text_config(16, 16))),
            text_encoder_2=noisy(CLIPTextModelWithProjection(text_config(24, 24, "gelu"))),
            tokenizer=first,
            tokenizer_2=second,
            unet=noisy(unet(40, **extra)),
            scheduler=DDIMScheduler(**NOISE),
        )
    prediction = "v_prediction" if kind == "sd2" else "epsilon"
    width, act, pad = (24, "gelu", "!") if kind == "sd2" else (16, "quick_gelu", "<|endoftext|>")
    words = first.__class__.from_pretrained(models.SHIPPED["emoji"] / "tokenizer", pad_token=pad)
    # SD 1's config on the hub says eos_token_id 2, SD 2's the true one
    encoder = CLIPTextModel(text_config(width, width, act, eos=49407 if kind == "sd2" else 2))
    scheduler = PNDMScheduler(
        **{k: v for k, v in NOISE.items() if k != "clip_sample"}, skip_prk_steps=True, prediction_type=prediction
    )
    return StableDiffusionPipeline(
        vae=noisy(vae()),
        text_encoder=noisy(encoder),
        tokenizer=words,
        unet=noisy(unet(width)),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def save(root: Path) -> dict[str, Path]:
    """Folders of the three kinds."""
    for kind in KINDS:
        pipe = make_pipeline(kind)
        pipe.set_progress_bar_config(disable=True)
        pipe.save_pretrained(root / kind)
        for file in list((root / kind).glob("tokenizer*/tokenizer.json")):
            file.unlink()  # as on the hub: a list of words and one of merges, which are read in a fifth of the time
            for name in ("vocab.json", "merges.txt"):
                shutil.copy(models.SHIPPED["emoji"] / "tokenizer" / name, file.with_name(name))
    return {kind: root / kind for kind in KINDS}
