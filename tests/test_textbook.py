"""The experiment as a tutorial writes it, line by line, against embedlab."""

import torch
from conftest import open_pipeline
from diffusers import LMSDiscreteScheduler
from transformers.masking_utils import create_causal_mask

from embedlab import Cell, Guidance, Replace, Sampler, render


@torch.no_grad()
def textbook(pipe, prompt: str, seed: int, steps: int, scale: float):
    """Swap puppy for cat in the token embeddings, encode by hand, denoise by hand with LMS."""
    tokenizer, encoder, unet = pipe.tokenizer, pipe.text_encoder, pipe.unet

    def encode(token_embeddings):
        position_embeddings = encoder.embeddings.position_embedding(torch.arange(77)[None])
        hidden = token_embeddings + position_embeddings
        mask = create_causal_mask(
            config=encoder.config, inputs_embeds=hidden, attention_mask=None, past_key_values=None
        )
        hidden = encoder.encoder(inputs_embeds=hidden, attention_mask=mask, is_causal=True).last_hidden_state
        return encoder.final_layer_norm(hidden)

    ids = tokenizer(prompt, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
    token_embeddings = encoder.embeddings.token_embedding(ids)
    cat = encoder.embeddings.token_embedding(torch.tensor(2368))
    token_embeddings[0, torch.where(ids[0] == 6829)] = cat
    conditional = encode(token_embeddings)
    empty = tokenizer("", padding="max_length", max_length=77, return_tensors="pt").input_ids
    text = torch.cat([encode(encoder.embeddings.token_embedding(empty)), conditional])

    scheduler = LMSDiscreteScheduler.from_config(pipe.scheduler.config)
    scheduler.set_timesteps(steps)
    latents = torch.randn((1, 4, 8, 8), generator=torch.manual_seed(seed)) * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        model_input = scheduler.scale_model_input(torch.cat([latents] * 2), t)
        uncond, cond = unet(model_input, t, encoder_hidden_states=text).sample.chunk(2)
        latents = scheduler.step(uncond + scale * (cond - uncond), t, latents).prev_sample
    return conditional[0], latents


def test_the_textbook_edit_gives_the_same_embeddings_and_latents(folders, sd1):
    hidden, latents = textbook(open_pipeline(folders["sd1"]), "A picture of a puppy", seed=32, steps=12, scale=7.5)
    cell = Cell(
        "A picture of a puppy", (Replace("puppy", by="cat"),), guidance=Guidance(7.5), sampler=Sampler("lms", 12)
    )
    made = render(sd1, [cell], [32])[0]
    torch.testing.assert_close(made.conditioning[0].cond.hidden, hidden, atol=1e-5, rtol=0)
    torch.testing.assert_close(made.latents, latents, atol=1e-5, rtol=1e-5)
    unedited = render(sd1, [cell.baseline()], [32])[0]
    assert not torch.allclose(unedited.latents, latents, atol=1e-3), "the edit changes the picture"
