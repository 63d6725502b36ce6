import threading

import pytest
import torch

from embedlab import clip, embed, embed_all, encode, models
from embedlab.errors import SamplerError

PROMPTS = ["A picture of a puppy", "", "a " * 75]


@pytest.mark.parametrize("prompt", PROMPTS, ids=["short", "empty", "full"])
def test_unedited_rows_give_the_librarys_own_states_to_the_bit(model, prompt):
    for tower in model.towers:
        rows = embed(prompt, tower)
        own = tower.encoder(rows.tokens.ids, output_hidden_states=True)
        ours = clip.forward(tower, rows.tokens.ids, rows.summed)
        assert len(ours.hidden) == len(own.hidden_states) == 4
        assert all(torch.equal(a, b) for a, b in zip(ours.hidden, own.hidden_states, strict=True))
        assert torch.equal(ours.last, own.last_hidden_state)
        pooled = own.text_embeds if hasattr(own, "text_embeds") else own.pooler_output
        assert torch.equal(ours.pooled, pooled)


def test_conditioning_is_that_of_the_pipeline(model, pipeline, kind):
    with torch.no_grad():
        ours = encode([embed_all("a puppy on the moon", model.towers)], model.towers)[0]
        if kind == "sdxl":
            hidden, _, pooled, _ = pipeline.encode_prompt("a puppy on the moon", do_classifier_free_guidance=False)
            assert torch.equal(ours.pooled, pooled[0])
        else:
            hidden, _ = pipeline.encode_prompt("a puppy on the moon", "cpu", 1, False)
    assert torch.equal(ours.hidden, hidden[0])


def test_edited_rows_reach_the_encoder(sd1):
    tower = sd1.towers[0]
    rows = embed("a puppy", tower)
    changed = rows.summed.clone()
    changed[0, 2] += 1
    before, after = (clip.forward(tower, rows.tokens.ids, r).last for r in (rows.summed, changed))
    assert torch.equal(before[0, :2], after[0, :2]), "the encoder is causal: rows before the edit stay"
    assert (before[0, 2:] != after[0, 2:]).any(dim=-1).all()


def test_the_encoder_is_given_back_after_an_exception(sd1):
    tower = sd1.towers[0]
    own = tower.core.embeddings
    with pytest.raises(RuntimeError, match="on purpose"), clip.injected(tower.core, torch.zeros(1, 77, 16)):
        assert tower.core.embeddings is not own
        raise RuntimeError("on purpose")
    assert tower.core.embeddings is own


def test_threads_do_not_mix_their_edits(sd1):
    tower = sd1.towers[0]
    prompts = [embed(f"a {word}", tower) for word in ("cat", "puppy", "skunk", "fox")]
    alone = [clip.forward(tower, p.tokens.ids, p.summed).last for p in prompts]
    wrong = []

    def work(i: int) -> None:
        for _ in range(20):
            if not torch.equal(clip.forward(tower, prompts[i].tokens.ids, prompts[i].summed).last, alone[i]):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_pooled_is_read_at_the_first_end_of_text_even_with_added_tokens(folders):
    """`eos_token_id: 2` makes the library take the highest id, which an added token is."""
    tower = models.Source(str(folders["sd1"])).load().towers[0]
    rows = embed("a puppy and a cat", tower)
    ids = rows.tokens.ids.clone()
    ids[0, 2] = 49408  # as textual inversion adds it
    states = clip.forward(tower, ids, rows.summed)
    assert torch.equal(states.pooled[0], states.last[0, 6])


def test_clip_skip_is_diffusers_formula(sd1):
    tower = sd1.towers[0]
    rows = embed("a puppy", tower)
    out = tower.encoder(rows.tokens.ids, output_hidden_states=True)
    skipped = clip.read(tower, clip.forward(tower, rows.tokens.ids, rows.summed), skip=2)
    assert torch.equal(skipped, tower.core.final_layer_norm(out.hidden_states[-3]))
    with pytest.raises(SamplerError, match="cannot skip 9 layers: this text encoder has 3"):
        clip.read(tower, clip.forward(tower, rows.tokens.ids, rows.summed), skip=9)


def test_many_prompts_of_any_length_in_one_call(model):
    texts = ["a cat", "a puppy " * 90, "", "a skunk"]
    prompts = [embed_all(text, model.towers) for text in texts]
    together = encode(prompts, model.towers)
    for prompt, conditioning in zip(prompts, together, strict=True):
        alone = encode([prompt], model.towers)[0]
        assert conditioning.hidden.shape == alone.hidden.shape
        torch.testing.assert_close(conditioning.hidden, alone.hidden, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(conditioning.pooled, alone.pooled, atol=1e-5, rtol=1e-5)


def test_joins(sd1):
    prompt = embed_all("puppy " * 160, sd1.towers)
    windows, run = (encode([prompt], sd1.towers, join)[0].hidden for join in ("windows", "run"))
    assert windows.shape[0] == 231
    assert run.shape[0] == 227
    assert torch.equal(run[:76], windows[:76])
    assert torch.equal(run[76:151], windows[78:153])
    assert torch.equal(run[151:], windows[155:])
