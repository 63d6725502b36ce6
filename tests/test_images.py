import pytest
import torch
from PIL import Image

from embedlab import images
from embedlab.errors import ConfigError


def test_settings_come_back_out_of_the_png(tmp_path):
    settings = {"config": {"prompt": "ein Hündchen <b>&"}, "seed": 3}
    path = images.save(Image.new("RGB", (8, 8)), tmp_path / "a" / "x.png", settings)
    assert images.settings_of(path) == settings
    assert [p.name for p in path.parent.iterdir()] == ["x.png"], "no temporary file is left"


def test_a_png_of_others_and_a_folder_that_is_no_folder_are_one_line(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "x.png")
    with pytest.raises(ConfigError, match="holds no embedlab settings"):
        images.settings_of(tmp_path / "x.png")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"'.*file/x\.png' cannot be written: "):
        images.save(Image.new("RGB", (8, 8)), tmp_path / "file" / "x.png", {})


def test_pictures_survive_the_way_to_8_bits_and_back():
    picture = torch.randint(0, 256, (2, 3, 8, 12)).float() / 255
    back = torch.stack([images.to_tensor(p) for p in images.to_pil(picture)])
    assert torch.equal(back, picture)
    assert images.to_tensor(images.to_pil(picture)[0], (4, 4)).shape == (3, 4, 4)


def test_decode_is_the_pipelines(pipeline, model):
    latents = torch.randn(3, 4, 8, 8)
    with torch.no_grad():
        own = pipeline.image_processor.postprocess(
            pipeline.vae.decode(latents / pipeline.vae.config.scaling_factor).sample, output_type="pt"
        )
    torch.testing.assert_close(images.decode(latents, model.vae), own, atol=1e-5, rtol=0)


def test_a_sheet_has_a_place_for_every_picture_and_marks_what_is_missing():
    red, blue = Image.new("RGB", (64, 64), "red"), Image.new("RGB", (64, 64), "blue")
    sheet = images.sheet(
        [[red, None], [blue, red]], ["a long label that needs several lines to fit", "b"], ["seed 0", "seed 1"], "title"
    )
    colours = {colour for _, colour in sheet.getcolors(maxcolors=100_000)}
    assert {(255, 0, 0), (0, 0, 255), (221, 221, 221), (255, 255, 255)} <= colours
    assert sheet.width > 2 * 112


def test_labels_are_broken_and_shortened_to_fit():
    font = images.font(13)
    lines = images.wrap(
        "puppy → 0.25 skunk of a very long kind indeed with Donaudampfschifffahrtsgesellschaft", font, 90
    )
    assert len(lines) <= 3
    assert all(font.getlength(line) <= 90 for line in lines)
    assert lines[-1].endswith("…")
