"""Tiny real models: classes and layout of Stable Diffusion 1, 2 and XL with random weights, saved as folders."""

import datetime
import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["WANDB_SILENT"] = "true"
# a third of the hostile trials is run, by the day; this process hands the choice to its workers
os.environ.setdefault("EMBEDLAB_TURN", str(datetime.date.today().toordinal() % 3))

import atexit
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import hypothesis
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DiffusionPipeline,
    PNDMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

sys.path.append(str(Path(__file__).with_name("hostile")))
from trials import Forks

from embedlab import models
from embedlab.cli import main as app
from embedlab.models import loading

os.environ["EMBEDLAB_CACHE"] = tempfile.mkdtemp()  # hashes of large files; not the user's
atexit.register(shutil.rmtree, os.environ["EMBEDLAB_CACHE"], ignore_errors=True)
pytest.register_assert_rewrite("cluster_laws")
collect_ignore = [] if os.environ.get("EMBEDLAB_SLURM") else ["slurm"]  # needs the cluster of tests/slurm/run.py
collect_ignore += [] if os.environ.get("EMBEDLAB_GPU") else ["gpu"]  # needs a GPU: tests/gpu/run.py
torch.set_grad_enabled(True)
hypothesis.settings.register_profile("embedlab", deadline=None)  # a busy machine is slow, not wrong
hypothesis.settings.load_profile("embedlab")
NOISE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
}
NOISE |= {"steps_offset": 1}


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


if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # a shell does that to what it starts in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)


LONGEST_FILES = ("test_app", "test_sweep", "test_workers", "test_ray", "test_readme", "test_crash", "test_hostile")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest is begun first, so that no worker is left with it at the end."""
    items.sort(key=lambda item: item.path.stem not in LONGEST_FILES)


def pytest_report_header() -> str:
    """Which of the hostile trials are run."""
    return f"hostile trials: turn {os.environ['EMBEDLAB_TURN']} of 0, 1, 2 (by the day; EMBEDLAB_TURN=all runs all)"


@pytest.fixture(scope="session")
def forks(folders):
    """The process that runs hostile trials and other programs, with all imported and the small model in memory."""
    made = Forks(folders["sd1"])
    yield made
    made.close()


@pytest.fixture(scope="session")
def folders(tmp_path_factory) -> dict[str, Path]:
    """Saved folders of the three kinds."""
    root = tmp_path_factory.mktemp("models")
    for kind in ("sd1", "sd2", "sdxl"):
        pipe = make_pipeline(kind)
        pipe.set_progress_bar_config(disable=True)
        pipe.save_pretrained(root / kind)
    return {kind: root / kind for kind in ("sd1", "sd2", "sdxl")}


@pytest.fixture(scope="session", params=["sd1", "sd2", "sdxl"])
def kind(request) -> str:
    return request.param


@pytest.fixture(scope="session")
def model(folders, kind) -> models.Model:
    """One of the three kinds, loaded."""
    return models.load(str(folders[kind]), device="cpu")


@pytest.fixture(scope="session")
def sd1(folders) -> models.Model:
    return models.load(str(folders["sd1"]), device="cpu")


@pytest.fixture(scope="session")
def emoji() -> models.Model:
    """The model that ships with embedlab."""
    return models.load("emoji", device="cpu")


@pytest.fixture
def pipeline(folders, kind):
    """The library's own pipeline over the same folder."""
    return open_pipeline(folders[kind])


def open_pipeline(folder: Path):
    """diffusers' pipeline of a folder, weights laid out as ours: sums in another order differ in the fifth digit."""
    extra = {} if folder.name == "sdxl" else {"safety_checker": None}
    pipe = DiffusionPipeline.from_pretrained(folder, **extra)
    for part in (pipe.unet, pipe.vae):
        part.to(memory_format=torch.channels_last)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture
def pipeline_sd1(folders):
    """diffusers' pipeline of the small SD 1."""
    return open_pipeline(folders["sd1"])


@pytest.fixture
def unreadable(folders, tmp_path) -> Path:
    """A small SD 1 whose small files are right and whose UNet lacks a tensor's last bytes."""
    folder = shutil.copytree(folders["sd1"], tmp_path / "unreadable")
    (weights,) = (folder / "unet").glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:-100])
    return folder


@pytest.fixture
def unread():
    """Nobody reads the weights of a whole model, nor asks for those that were read, while the test runs."""

    def asked():
        known = loading.read_model.cache_info()
        return known.hits, known.misses

    before = asked()
    yield
    assert asked() == before, "weights were read"


@pytest.fixture
def embedlab(tmp_path, monkeypatch, capsys, folders):
    """Run the command in this process, on the smallest model; the answer is exit code, output and errors."""
    monkeypatch.chdir(tmp_path)
    common = [f"model.name={folders['sd1']}", "model=custom", "model.device=cpu", "sampler.steps=2"]

    def run(*words, plain=False):
        given = [key.split("=")[0] for key in words]
        more = [] if plain else [w for w in (*common, "seeds=[0,1]", "tracker=silent") if w.split("=")[0] not in given]
        monkeypatch.setattr(sys, "argv", ["embedlab", *more, *words])
        try:
            app.main()
            code = 0
        except SystemExit as error:
            code = error.code
        return code, *capsys.readouterr()

    return run
