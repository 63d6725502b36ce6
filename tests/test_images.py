import re

import numpy as np
import pytest
import torch
from PIL import Image

from embedlab import Cell, Sampler, images, render
from embedlab.cell import fingerprint
from embedlab.errors import ConfigError, PictureError
from embedlab.images.drawing import wrap
from embedlab.sampler import Start


def test_settings_come_back_out_of_the_png(tmp_path):
    settings = {"config": {"prompt": "ein Hündchen <b>&"}, "seed": 3}
    path = images.save(Image.new("RGB", (8, 8)), tmp_path / "a" / "x.png", settings)
    assert images.settings_of(path) == settings
    assert [p.name for p in path.parent.iterdir()] == ["x.png"], "no temporary file is left"


def test_a_png_holds_pixels_and_texts_whatever_its_texts_were_before(tmp_path):
    picture = Image.radial_gradient("L").convert("RGB")
    for n, words in enumerate(("Steps: 3", "Schritte: drei, ein Hündchen", "")):
        path = images.save(picture, tmp_path / f"{n}.png", {"n": n}, words)
        with Image.open(path) as read:
            read.verify()  # the sums of all chunks
        with Image.open(path) as read:
            assert read.tobytes() == picture.tobytes()
            assert read.text == {"embedlab": f'{{"n": {n}}}', **({"parameters": words} if words else {})}
        assert images.is_whole(path)
    other = picture.copy()
    other.putpixel((0, 0), (1, 2, 3))
    assert images.encoded(picture) is images.encoded(picture.copy())
    assert images.encoded(other) != images.encoded(picture)


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
    lines = wrap("puppy → 0.25 skunk of a very long kind indeed with Donaudampfschifffahrtsgesellschaft", font, 90)
    assert len(lines) <= 3
    assert all(font.getlength(line) <= 90 for line in lines)
    assert lines[-1].endswith("…")


def seen(path):
    """The pixels that sampling starts from, of a file."""
    return np.asarray(Start(str(path), strength=0.5).open())


def halves(size=(48, 64)):
    """Red above, blue below."""
    picture = Image.new("RGB", size, "red")
    picture.paste("blue", (0, size[1] // 2, *size))
    return picture


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_stands_as_its_exif_says(tmp_path, orientation):
    turned = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # what undoes each, of PIL's transpositions
    stored = halves() if orientation == 1 else halves().transpose(Image.Transpose(turned[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "phone.png", exif=exif)
    assert np.array_equal(seen(tmp_path / "phone.png"), np.asarray(halves())), "as written, turned or mirrored"


def test_sixteen_bits_of_grey_are_scaled_not_cut_off(tmp_path):
    ramp = np.arange(0, 65536, 16, dtype=np.uint16).reshape(64, 64)
    for name, kind in (("grey.png", "<u2"), ("little.tiff", "<u2"), ("big.tiff", ">u2")):
        Image.fromarray(ramp.astype(kind)).save(tmp_path / name)
        expected = (ramp / 257).round().astype(np.uint8)
        assert np.array_equal(seen(tmp_path / name), expected[..., None].repeat(3, 2)), name
    (tmp_path / "grey.pgm").write_bytes(b"P5 64 64 65535\n" + ramp.astype(">u2").tobytes())
    assert np.array_equal(seen(tmp_path / "grey.pgm")[..., 0], expected)


GREY = ("1", "L", "LA", "La", "I;16", "I")
COLOUR = ("P", "RGB", "RGBA", "RGBa", "RGBX", "PA", "CMYK", "YCbCr", "HSV", "LAB")


@pytest.mark.parametrize("mode", [*GREY, *COLOUR])
def test_every_mode_is_seen_in_its_own_colours(mode):
    through = {"La": "LA", "RGBa": "RGBA", "PA": "P"}.get(mode, mode)
    if mode in GREY:
        plain = Image.new("L", (8, 8), 255)
        plain.paste(0, (0, 4, 8, 8))
        numbers = np.asarray(plain).astype(np.int32) * 257
        whole = {"I": Image.fromarray(numbers), "I;16": Image.fromarray(numbers.astype(np.uint16))}
        picture = whole[mode] if mode in whole else plain.convert(through).convert(mode)
    else:
        plain = halves((8, 8))
        picture = plain.convert(through).convert(mode)
    assert picture.mode == mode
    expected = picture if mode == "LAB" else plain  # pure blue does not fit into its 8 bits
    gap = np.asarray(images.as_seen(picture), int) - np.asarray(expected.convert("RGB"), int)
    assert np.abs(gap).max() <= 2, "no more than the mode itself rounds"


def test_what_is_transparent_is_white(tmp_path):
    clear = np.zeros((8, 8, 4), np.uint8)
    clear[:, 4:] = [0, 200, 0, 255]
    clear[0, 0] = [0, 0, 0, 128]
    Image.fromarray(clear).save(tmp_path / "rgba.png")
    Image.fromarray(clear).convert("LA").save(tmp_path / "la.png")
    palette = Image.new("P", (8, 8), 0)
    palette.putpalette([10, 20, 30, 0, 200, 0])
    palette.paste(1, (4, 0, 8, 8))
    palette.save(tmp_path / "palette.gif", transparency=0)
    palette.save(tmp_path / "palette.png", transparency=0)
    for name in ("rgba.png", "la.png", "palette.gif", "palette.png"):
        picture = seen(tmp_path / name)
        assert picture[1, 1].tolist() == [255] * 3, name
        assert picture[1, 5].tolist() == ([117] * 3 if name == "la.png" else [0, 200, 0]), name
    assert seen(tmp_path / "rgba.png")[0, 0].tolist() == [127] * 3


def test_numbers_that_are_no_colours_are_one_line(tmp_path):
    Image.fromarray(np.random.rand(8, 8).astype(np.float32)).save(tmp_path / "float.tiff")
    Image.fromarray(np.full((8, 8), 70_000, np.int32)).save(tmp_path / "long.tiff")
    halves().convert("RGB").save(tmp_path / "whole.png")
    data = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(data[: len(data) // 2])
    (tmp_path / "none.png").write_text("no picture")
    for name, said in (
        ("float.tiff", "its pixels are floating-point numbers; save it with 8"),
        ("long.tiff", "its pixels are 32-bit numbers; save it with 8 or 16 bits"),
        ("cut.png", "cannot be read to its end"),
        ("none.png", "is not a picture that can be read"),
    ):
        with pytest.raises(PictureError, match=said) as caught:
            Start(str(tmp_path / name), strength=0.5)
        assert "\n" not in str(caught.value)
        assert name in str(caught.value)


def test_a_start_takes_a_file_an_image_and_a_tensor_and_they_are_equal(tmp_path, sd1):
    picture = Image.effect_noise((16, 16), 90).convert("RGB")
    picture.save(tmp_path / "in.png")
    tensor = images.to_tensor(picture)
    kinds = (str(tmp_path / "in.png"), tmp_path / "in.png", picture, tensor, tensor.mul(255).round().byte())
    starts = [Start(kind, strength=0.5) for kind in kinds]
    assert len({start.content for start in starts}) == 1
    assert len(set(starts)) == 2, "the path, and the pixels"
    assert len({fingerprint(start) for start in starts[2:]}) == 1
    made = render(sd1, [Cell("a puppy", sampler=Sampler("ddim", 4), start=start) for start in starts], [0])
    assert all(torch.equal(one.latents, made[0].latents) for one in made[:1])
    for one in made:
        torch.testing.assert_close(one.latents, made[0].latents, atol=1e-5, rtol=0)
    other = Start(Image.new("RGB", (16, 16)), strength=0.5)
    assert other != starts[2]
    assert other.content != starts[2].content
    assert fingerprint(other) != fingerprint(starts[2])


@pytest.mark.parametrize(
    ("picture", "said"),
    [
        (5, "start.picture is 5; it has to be a path, a PIL image or a tensor"),
        (b"in.png", "start.picture is b'in.png'; it has to be a path"),
        (torch.zeros(1, 3, 8, 8), r"has the shape (3, height, width), not (1, 3, 8, 8)"),
        (torch.zeros(8, 8, 3), r"has the shape (3, height, width), not (8, 8, 3)"),
        (torch.zeros(3, 0, 8), r"not (3, 0, 8)"),
        (torch.full((3, 8, 8), 1.5), "holds numbers from 0 to 1, or bytes"),
        (torch.full((3, 8, 8), float("nan")), "holds numbers from 0 to 1, or bytes"),
        (torch.zeros(3, 8, 8, dtype=torch.int64), "holds numbers from 0 to 1, or bytes"),
        (Image.new("F", (8, 8)), "its pixels are floating-point numbers"),
        ("~nosuchuser/in.png", "there is no picture '~nosuchuser/in.png' in '"),
        ("in\0.png", r"there is no picture 'in\x00.png' in '"),
        ("\udc80.png", r"there is no picture '\udc80.png' in '"),
        ("x" * 5000, "there is no picture 'xxx"),
        ("", "there is no picture '' in '"),
        (".", "there is no picture '.' in '"),
    ],
)
def test_what_is_no_picture_is_one_line(picture, said):
    with pytest.raises(PictureError, match=re.escape(said)) as caught:
        Start(picture, strength=0.5)
    assert "\n" not in str(caught.value)
    assert str(caught.value).isprintable()


def test_a_relative_path_is_found_from_elsewhere_and_a_file_that_changed_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    halves().save("in.png")
    start = Start("in.png", strength=0.5)
    assert start.about(tmp_path / "out" / "job") == {"content": start.content, "path": "../../in.png"}
    assert Start("puppy.png", strength=0.5).about(tmp_path) == {"content": Start("puppy.png", step=1).content}
    (tmp_path / "deeper").mkdir()
    monkeypatch.chdir(tmp_path / "deeper")
    assert start.open().size == (48, 64)
    with pytest.raises(PictureError, match="there is no picture 'in.png' in '.*deeper'"):
        Start("in.png", strength=0.5)
    halves((48, 32)).save(tmp_path / "in.png")
    with pytest.raises(PictureError, match="is another picture than it was"):
        start.open()
