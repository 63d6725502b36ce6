"""A laboratory for CLIP text embeddings in text-to-image diffusion."""

from importlib import import_module
from typing import Any

_HOME = {
    "Add": "operators",
    "Alternate": "schedule",
    "Average": "operators",
    "Blend": "operators",
    "Cell": "experiment",
    "Concatenate": "operators",
    "Conditioning": "encoder",
    "Drop": "operators",
    "During": "schedule",
    "Embeddings": "embeddings",
    "EmbedlabError": "errors",
    "Encoder": "encoder",
    "Freeze": "operators",
    "Guidance": "guidance",
    "Interpolate": "operators",
    "Job": "sweep.job",
    "Lookup": "embeddings",
    "Metrics": "experiment",
    "Model": "models",
    "Moment": "schedule",
    "Noise": "operators",
    "Normalise": "operators",
    "Permute": "operators",
    "Place": "operators",
    "ProjectOut": "operators",
    "Ramp": "schedule",
    "Replace": "operators",
    "Reverse": "operators",
    "Rotate": "operators",
    "Rows": "select",
    "Sampler": "sampler",
    "Scale": "operators",
    "Shift": "operators",
    "Shuffle": "operators",
    "Start": "sampler",
    "Store": "sweep.store",
    "Stretch": "operators",
    "Subtract": "operators",
    "Swap": "operators",
    "Switch": "schedule",
    "Texts": "encoder",
    "Tokens": "prompt",
    "Tower": "clip",
    "Truncate": "operators",
    "at": "schedule",
    "carry_out": "sweep.run",
    "edit": "operators",
    "edit_encoded": "operators",
    "edited_rows": "export",
    "embed": "embeddings",
    "embed_all": "encoder",
    "encode": "encoder",
    "equal_lengths": "encoder",
    "explain": "explanation",
    "find": "models",
    "load": "models",
    "load_embeds": "export",
    "prompt_embeds": "export",
    "render": "experiment",
    "save_embeds": "export",
    "score": "experiment",
    "texts_of": "encoder",
    "tokenize": "prompt",
    "towers_of": "models",
}
__all__ = sorted(_HOME)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: the command line answers before torch is loaded."""
    if name not in _HOME:
        raise AttributeError(f"embedlab has no '{name}'; its public names are {', '.join(__all__)}.")
    return getattr(import_module(f"embedlab.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
