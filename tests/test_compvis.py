"""The page about CompVis' scripts: each key that it names is there, and each flag has a key or a reason."""

import re
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from test_conf import composed

PAGE = (Path(__file__).parent.parent / "docs" / "compvis.md").read_text(encoding="utf-8")
ROWS = [tuple(cell.strip() for cell in line.strip("|").split(" | ")) for line in PAGE.splitlines() if line[:2] == "| "]
ROWS = [row for row in ROWS if row[0] not in ("flag", "argument")]
# of txt2img.py and img2img.py, and the arguments of DDIMSampler and PLMSSampler: sample, make_schedule, decode
FLAGS = (
    *("--prompt", "--outdir", "--skip_grid", "--skip_save", "--ddim_steps", "--plms", "--dpm_solver", "--laion400m"),
    *("--fixed_code", "--ddim_eta", "--n_iter", "--H", "--W", "--C", "--f", "--n_samples", "--n_rows", "--scale"),
    *("--from-file", "--config", "--ckpt", "--seed", "--precision", "--init-img", "--strength"),
    *("S", "batch_size", "shape", "conditioning", "callback", "normals_sequence", "img_callback", "quantize_x0", "eta"),
    *("mask", "x0", "temperature", "noise_dropout", "score_corrector", "corrector_kwargs", "x_T", "log_every_t"),
    *("unconditional_guidance_scale", "unconditional_conditioning", "verbose", "ddim_discretize"),
    *("ddim_use_original_steps", "repeat_noise", "quantize_denoised", "use_original_steps", "stochastic_encode"),
)
CHOICES = {"start.picture": "start=picture", "start.strength": "start=picture", "start.mask": "start=picture"}
CHOICES |= {"start.step": "start=picture", "start.latents": "start=latents", "start.depth": "start=picture"}
CHOICES |= {"model.ema": "model=custom", "model.name": "model=custom", "model.config": "model=custom"}


def test_every_flag_and_argument_has_a_row():
    named = {name for row in ROWS for name in re.findall(r"`([-\w]+)", row[0])}
    assert set(FLAGS) <= named


@pytest.mark.turns
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_a_row_names_a_key_that_is_there_or_says_why_there_is_none(row):
    key = re.fullmatch(r"`(.+)`", row[1])
    if key is None:
        assert row[1] == "–"
        assert len(row[2]) > 20
        return
    if "=" in key[1]:
        assert composed(key[1])
    elif key[1] == "prompts":
        assert "prompts" in composed()["hydra"] or (Path(__file__).parent.parent / "conf" / "prompts").is_dir()
    else:
        config = composed(CHOICES[key[1]]) if key[1] in CHOICES else composed()
        part, _, name = key[1].rpartition(".")
        assert name in set(OmegaConf.select(config, part) if part else config), key[1]
    for more in re.findall(r"`([\w.]+=[^`]+)`", row[2]):
        group = more.partition("=")[0]
        if not more.startswith("prompts=@") and "…" not in more and "[H,W]" not in more:
            assert composed(*([CHOICES[group]] if group in CHOICES else []), more)
