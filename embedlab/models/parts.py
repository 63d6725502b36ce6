"""The parts of a model as functions of tensors in a row: what is counted, exported, and run by engines."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from embedlab.clip import Tower


class Text(nn.Module):
    """A text encoder from the summed rows of tokens and positions, so that edited rows go in."""

    def __init__(self, tower: Tower):
        super().__init__()
        self.core, self.projection = tower.core, getattr(tower.encoder, "text_projection", None)
        self.layer, self.final_norm = tower.layer, tower.final_norm

    def states(self, rows: Tensor) -> list[Tensor]:
        """What enters, what each layer gives, and the last of it through the final norm; each (window, 77, dim)."""
        places = rows.shape[1]
        shut = torch.full((places, places), torch.finfo(rows.dtype).min, dtype=rows.dtype, device=rows.device)
        causal = torch.triu(shut, diagonal=1)[None, None]
        states = [rows]
        for layer in self.core.encoder.layers:
            states.append(layer(states[-1], attention_mask=causal))
        return [*states, self.core.final_layer_norm(states[-1])]

    def forward(self, rows: Tensor) -> Any:
        """(window, 77, dim) → the hidden states that the UNet reads, and the final ones through the projection."""
        *states, last = self.states(rows)
        read = states[-1 - self.layer]
        hidden = self.core.final_layer_norm(read) if self.final_norm else read
        return hidden, last if self.projection is None else self.projection(last)


class HiddenStates(Text):
    """A text encoder from the summed rows to everything that is read of it."""

    def forward(self, rows: Tensor) -> Tensor:
        """(window, 77, dim) → all `states` of it as one tensor: (window, state, 77, dim)."""
        return torch.stack(self.states(rows), dim=1)


class Predict(nn.Module):
    """A UNet of diffusers with its inputs in the order of `names`; it answers with the prediction."""

    def __init__(self, unet: Any, names: tuple[str, ...]):
        super().__init__()
        self.unet, self.names = unet, names

    def forward(self, *tensors: Tensor) -> Tensor:
        """(sample, timestep, encoder_hidden_states, …) → (row, c, h, w)."""
        named: dict[str, Any] = dict(zip(self.names, tensors, strict=True))
        added = {name: named.pop(name) for name in ("text_embeds", "time_ids") if name in named}
        out: tuple[Tensor] = self.unet(**named, added_cond_kwargs=added or None, return_dict=False)
        return out[0]


class Encode(nn.Module):
    """The half of a VAE that makes latents: mean and log variance of each, where it has both."""

    def __init__(self, vae: Any):
        super().__init__()
        self.encoder, self.quant_conv = vae.encoder, getattr(vae, "quant_conv", None)

    def forward(self, pictures: Tensor) -> Tensor:
        """(image, 3, height, width) in [-1, 1] → (image, c or 2c, h, w)."""
        encoded: Tensor = self.encoder(pictures)
        return encoded if self.quant_conv is None else self.quant_conv(encoded)


class Decode(nn.Module):
    """The half of a VAE that makes pictures."""

    def __init__(self, vae: Any):
        super().__init__()
        self.post_quant_conv, self.decoder = getattr(vae, "post_quant_conv", None), vae.decoder
        self.factor = 2 ** (len(vae.config.block_out_channels) - 1)  # pixels a side of one of latents

    def forward(self, latents: Tensor) -> Tensor:
        """(image, c, h, w) → (image, 3, height, width) in [-1, 1]."""
        pictures: Tensor = self.decoder(latents if self.post_quant_conv is None else self.post_quant_conv(latents))
        return pictures
