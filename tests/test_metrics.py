import dataclasses

import pytest
import torch
from torchmetrics.functional.image import structural_similarity_index_measure

from embedlab import (
    Cell,
    Interpolate,
    Job,
    Metrics,
    Replace,
    Sampler,
    Source,
    Store,
    embed_all,
    encode,
    render,
    run_jobs,
    score,
)
from embedlab.errors import ConfigError
from embedlab.metrics.clip_score import clip_scores, image_features, scores_of, text_features
from embedlab.metrics.distance import latent_distance, pixel_distance
from embedlab.metrics.score import score_names
from embedlab.metrics.ssim import ssim


def test_ssim_is_torchmetrics():
    a = torch.rand(3, 3, 48, 40)
    for b in (a, (a + 0.1 * torch.randn_like(a)).clamp(0, 1), torch.rand(3, 3, 48, 40)):
        _, full = structural_similarity_index_measure(b, a, data_range=1.0, return_full_image=True)
        # torchmetrics reflects the picture at its borders; the paper, and we, leave those places out
        oracle = full[..., 5:-5, 5:-5].flatten(1).mean(1)
        torch.testing.assert_close(ssim(a, b), oracle, atol=1e-4, rtol=0)  # float32 there, float64 here


def test_clip_score_is_the_librarys_cosine(emoji):
    """The same towers through `CLIPModel`, put together by hand."""
    pictures = torch.rand(2, 3, 128, 128)
    texts = ["a picture of a cat", "a puppy on green"]
    scores = clip_scores(emoji.scorer, pictures, texts)
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
    assert score_names(cell, Metrics(), Source(str(folders["sd1"]))) == list(whole)
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
    assert score_names(cell, Metrics(), Source("emoji")) == list(whole)
    rows, whole = score(emoji, before, after, Metrics(words=("star", "fox", "cat")))
    assert sum(whole[f"closest/{word}"] for word in ("star", "fox", "cat")) == pytest.approx(1)


def test_a_template_without_a_place_for_the_word_is_refused():
    with pytest.raises(ConfigError, match="metrics.template is 'a picture'; it needs one {}, where the word goes"):
        Metrics(template="a picture")


# ── company ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_features_do_not_depend_on_company_by_one_bit(emoji):
    """In one call they would: the last digits of a row depend on how many rows there are."""
    texts = [f"a picture of a puppy number {n}" for n in range(9)]
    with torch.inference_mode():
        for size in ((128, 128), (96, 64)):
            pictures = torch.rand(9, 3, *size)
            looked = image_features(emoji.scorer, pictures)
            assert all(
                torch.equal(image_features(emoji.scorer, p[None]), f[None])
                for p, f in zip(pictures, looked, strict=True)
            )
        read = text_features(emoji.scorer, texts)
        assert all(torch.equal(text_features(emoji.scorer, [t]), f[None]) for t, f in zip(texts, read, strict=True))
        scores, places = scores_of(looked, read), range(9)
        assert all(torch.equal(scores_of(looked[[n]], read[[k]])[0, 0], scores[n, k]) for n in places for k in places)


def test_what_is_told_of_a_prompt_does_not_depend_on_company_by_one_bit(model):
    prompts = [embed_all(text, model.towers) for text in ("a puppy", "a cat " * 60, "", "a red dog", "two green stars")]
    for told, prompt in zip(encode(prompts, model.towers), prompts, strict=True):
        (alone,) = encode([prompt], model.towers)
        assert torch.equal(told.hidden, alone.hidden)
        assert torch.equal(told.pooled, alone.pooled)


@pytest.mark.parametrize("measure", [ssim, pixel_distance, latent_distance])
@pytest.mark.parametrize("threads", [1, 2])
def test_distances_do_not_depend_on_company_by_one_bit(measure, threads):
    before = torch.get_num_threads()
    a, b = torch.rand(2, 7, 4 if measure is latent_distance else 3, 96, 128)
    torch.set_num_threads(threads)
    try:
        together = measure(a, b)
        assert all(torch.equal(measure(a[[n]], b[[n]])[0], together[n]) for n in range(7))
    finally:
        torch.set_num_threads(before)


def test_scores_do_not_depend_on_what_is_scored_beside(emoji):
    cell = Cell("a puppy", (Replace("puppy", "cat"),), sampler=Sampler("ddim", 2))
    before, after = render(emoji, [cell.baseline(), cell], range(5))
    rows, _ = score(emoji, before, after, Metrics(words=("star", "fox")))
    for n, row in enumerate(rows):
        one, other = (
            dataclasses.replace(
                made, seeds=made.seeds[n : n + 1], pictures=made.pictures[[n]], latents=made.latents[[n]]
            )
            for made in (before, after)
        )
        assert score(emoji, one, other, Metrics(words=("star", "fox")))[0] == [row]


def test_a_sweep_that_is_taken_up_again_scores_what_is_left_as_before(tmp_path):
    """Its pictures are there; whatever they are scored beside this time, the figures are the same to the bit."""
    source, store = Source("emoji", device="cpu"), tmp_path / "store"

    def jobs(where, *weights):
        how = {"sampler": Sampler("ddim", 2), "size": 64}
        cells = [Cell("a puppy", (Interpolate("puppy", "cat", weight),), **how) for weight in weights]
        return [Job(source, cell, (0, 1, 2), tmp_path / where / str(n), number=n) for n, cell in enumerate(cells)]

    first = run_jobs(jobs("first", 0.2, 0.4, 0.6, 0.8), Store(store)).results[2]
    alone = run_jobs(jobs("alone", 0.6), Store(store)).results[0]
    assert alone.scores == first.scores
    assert alone.pictures == first.pictures
