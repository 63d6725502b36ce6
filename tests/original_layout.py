"""Write a diffusers pipeline as one file in the original layout of Stable Diffusion 1, 2 or XL (the inverse of what
diffusers does when it reads one), for models of any size."""

import re

import torch

RESNET = {"norm1": "in_layers.0", "conv1": "in_layers.2", "norm2": "out_layers.0", "conv2": "out_layers.3"}
RESNET |= {"time_emb_proj": "emb_layers.1", "conv_shortcut": "skip_connection"}


def unet_key(key: str, layers: int, attends_up: list[bool]) -> str:
    """The original name of a UNet weight."""
    for old, new in {
        "time_embedding.linear_1": "time_embed.0",
        "time_embedding.linear_2": "time_embed.2",
        "add_embedding.linear_1": "label_emb.0.0",
        "add_embedding.linear_2": "label_emb.0.2",
        "conv_in": "input_blocks.0.0",
        "conv_norm_out": "out.0",
        "conv_out": "out.2",
    }.items():
        if key.startswith(old):
            return key.replace(old, new, 1)
    block, rest = key.split(".", 1)
    step = layers + 1
    if block == "mid_block":
        kind, j, rest = rest.split(".", 2)
        place = "middle_block.1" if kind == "attentions" else f"middle_block.{2 * int(j)}"
    else:
        i, kind, j, rest = rest.split(".", 3)
        i, j = int(i), int(j)
        side, at = ("input_blocks", step * i + j + 1) if block == "down_blocks" else ("output_blocks", step * i + j)
        if kind == "downsamplers":
            return f"input_blocks.{step * (i + 1)}.0.{rest.replace('conv', 'op', 1)}"
        if kind == "upsamplers":
            return f"output_blocks.{step * i + layers}.{2 if attends_up[i] else 1}.{rest}"
        place = f"{side}.{at}.{0 if kind == 'resnets' else 1}"
    if ".attentions" not in key:
        head, tail = rest.split(".", 1)
        rest = f"{RESNET[head]}.{tail}"
    return f"{place}.{rest}"


def vae_key(key: str, levels: int) -> str:
    """The original name of an autoencoder weight."""
    key = key.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")
    key = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", key)
    key = key.replace("mid_block.attentions.0", "mid.attn_1")
    if "attn_1" in key:
        for old, new in {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}.items():
            key = key.replace(old, new)
    key = re.sub(r"down_blocks\.(\d)\.resnets\.(\d)", r"down.\1.block.\2", key)
    key = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", key)
    key = re.sub(r"up_blocks\.(\d)\.resnets\.(\d)", lambda m: f"up.{levels - 1 - int(m[1])}.block.{m[2]}", key)
    return re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{levels - 1 - int(m[1])}.upsample", key)


def open_clip(encoder, prefix: str) -> dict[str, torch.Tensor]:
    """A text encoder as OpenCLIP stores it, as SD 2 and the second encoder of SDXL do."""
    core = getattr(encoder, "text_model", encoder)
    state = core.state_dict()
    out = {
        "token_embedding.weight": state["embeddings.token_embedding.weight"],
        "positional_embedding": state["embeddings.position_embedding.weight"],
        "ln_final.weight": state["final_layer_norm.weight"],
        "ln_final.bias": state["final_layer_norm.bias"],
    }
    for i in range(len(core.encoder.layers)):
        mine, theirs = f"encoder.layers.{i}.", f"transformer.resblocks.{i}."
        for kind in ("weight", "bias"):
            parts = [state[f"{mine}self_attn.{p}_proj.{kind}"] for p in "qkv"]
            out[f"{theirs}attn.in_proj_{kind}"] = torch.cat(parts)
            out[f"{theirs}attn.out_proj.{kind}"] = state[f"{mine}self_attn.out_proj.{kind}"]
            for a, b in {
                "layer_norm1": "ln_1",
                "layer_norm2": "ln_2",
                "mlp.fc1": "mlp.c_fc",
                "mlp.fc2": "mlp.c_proj",
            }.items():
                out[f"{theirs}{b}.{kind}"] = state[f"{mine}{a}.{kind}"]
    width = state["final_layer_norm.weight"].shape[0]
    projection = getattr(encoder, "text_projection", None)
    out["text_projection"] = projection.weight.T.contiguous() if projection is not None else torch.eye(width)
    return {prefix + key: value for key, value in out.items()}


def original(pipe, kind: str) -> dict[str, torch.Tensor]:
    """All weights of a pipeline under their original names."""
    config = pipe.unet.config
    attends = ["CrossAttn" in name for name in config.up_block_types]
    state = {
        f"model.diffusion_model.{unet_key(k, config.layers_per_block, attends)}": v
        for k, v in pipe.unet.state_dict().items()
    }
    levels = len(pipe.vae.config.block_out_channels)
    for key, value in pipe.vae.state_dict().items():
        name = vae_key(key, levels)
        state[f"first_stage_model.{name}"] = value[..., None, None] if "attn_1" in name and value.ndim == 2 else value
    if kind == "sd2":
        return state | open_clip(pipe.text_encoder, "cond_stage_model.model.")
    first = "cond_stage_model.transformer." if kind == "sd1" else "conditioner.embedders.0.transformer."
    state |= {f"{first}text_model.{k}": v for k, v in pipe.text_encoder.state_dict().items()}
    return state | (open_clip(pipe.text_encoder_2, "conditioner.embedders.1.model.") if kind == "sdxl" else {})
