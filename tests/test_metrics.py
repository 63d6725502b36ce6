import pytest
import torch
from torchmetrics.functional.image import structural_similarity_index_measure

from embedlab import Cell, Metrics, Replace, Sampler, find, metrics, render, score
from embedlab.errors import ConfigError
from embedlab.experiment import score_names
from embedlab.metrics.clip_score import image_features, text_features


def test_ssim_is_torchmetrics():
    a = torch.rand(3, 3, 48, 40)
    for b in (a, (a + 0.1 * torch.randn_like(a)).clamp(0, 1), torch.rand(3, 3, 48, 40)):
        _, full = structural_similarity_index_measure(b, a, data_range=1.0, return_full_image=True)
        # torchmetrics reflects the picture at its borders; the paper, and we, leave those places out
        oracle = full[..., 5:-5, 5:-5].flatten(1).mean(1)
        torch.testing.assert_close(metrics.ssim(a, b), oracle, atol=1e-4, rtol=0)  # float32 there, float64 here


def test_clip_score_is_the_librarys_cosine(emoji):
    """The same towers through `CLIPModel`, put together by hand."""
    pictures = torch.rand(2, 3, 128, 128)
    texts = ["a picture of a cat", "a puppy on green"]
    scores = metrics.clip_scores(emoji.scorer, pictures, texts)
    words = emoji.towers[0].tokenizer(texts, padding="max_length", max_length=77, return_tensors="pt")
    with torch.no_grad():
        text = emoji.towers[0].encoder(**words).pooler_output
        image = emoji.scorer.image(pixel_values=(pictures - 0.5) / 0.5).image_embeds
    oracle = 100 * torch.nn.functional.cosine_similarity(image[:, None], text[None], dim=-1).clamp_min(0)
    torch.testing.assert_close(scores, oracle, atol=1e-3, rtol=1e-4)
    assert image_features(emoji.scorer, torch.rand(1, 3, 200, 300)).norm().item() == pytest.approx(1, abs=1e-5)
    assert text_features(emoji.scorer, ["cat " * 200]).shape == (1, 96)


def test_an_unedited_picture_has_not_changed(sd1):
    cell = Cell("a puppy", sampler=Sampler("ddim", 2))
    before, after = render(sd1, [cell, cell], [0, 1])
    rows, whole = score(sd1, before, after, Metrics())
    assert [row["seed"] for row in rows] == [0, 1]
    assert whole["change/ssim"] == 1
    assert whole["change/pixels"] == whole["change/latents"] == whole["rows/edited"] == whole["rows/distance"] == 0
    assert whole["conditioning/distance"] == 0


def test_an_edit_is_measured_from_the_rows_to_the_picture(sd1, folders):
    cell = Cell("a puppy", (Replace("puppy", "cat"),), sampler=Sampler("ddim", 4))
    before, after = render(sd1, [cell.baseline(), cell], [0, 1])
    _, whole = score(sd1, before, after, Metrics())
    assert score_names(cell, Metrics(), find(str(folders["sd1"]))) == list(whole)
    assert whole["rows/edited"] == 1
    table = sd1.towers[0].token_table
    expected = (table[6829] - table[2368]).norm() / table[6829].norm()
    assert whole["rows/distance"] == pytest.approx(float(expected), rel=1e-5)
    assert whole["conditioning/distance"] > 0
    assert whole["change/latents"] > 0
    assert whole["change/ssim"] < 1


def test_words_of_the_edit_are_scored_and_the_closest_named(emoji):
    cell = Cell("a puppy", (Replace("puppy", "cat"),), sampler=Sampler("ddim", 2))
    before, after = render(emoji, [cell.baseline(), cell], [0, 1])
    rows, whole = score(emoji, before, after, Metrics())
    assert {"clip_score/prompt", "clip_score/puppy", "clip_score/cat", "change/cosine"} <= whole.keys()
    assert whole["closest/puppy"] + whole["closest/cat"] == 1
    for row in rows:
        assert row["closest"] == max(("puppy", "cat"), key=lambda word: row[f"clip_score/{word}"])
    assert score_names(cell, Metrics(), find("emoji")) == list(whole)
    rows, whole = score(emoji, before, after, Metrics(words=("star", "fox", "cat")))
    assert sum(whole[f"closest/{word}"] for word in ("star", "fox", "cat")) == pytest.approx(1)


def test_a_template_without_a_place_for_the_word_is_refused():
    with pytest.raises(ConfigError, match="metrics.template is 'a picture'; it needs one {}, where the word goes"):
        Metrics(template="a picture")
