"""A model whose UNet, and if asked for whose VAE decoder and text encoders, are run by an engine."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from embedlab.clip import Tower
from embedlab.engines.cache import Entry
from embedlab.engines.engine import Engine, Run
from embedlab.engines.graphs import Graph, unet_inputs
from embedlab.models import Model
from embedlab.models.parts import Decode, HiddenStates, Predict

Say = Callable[[str], None]


class Part:
    """A part of a model that is called as diffusers' own, and run by an engine where that can do what is asked."""

    def __init__(self, module: Any, engine: Engine, say: Say):
        self.module, self.engine, self.say = module, engine, say
        self.runs: dict[Any, Run] = {}
        self.told: set[str] = set()
        self.children = list(module.modules())
        self.processors = processors_of(module)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.module, name)

    def obstacle(self) -> str | None:
        """Why the call that comes has to be eager: somebody looks into the module, or changes it; None where not."""
        if torch.is_grad_enabled() and not torch.is_inference_mode_enabled():
            return "gradients are on"
        if any(foreign(one._forward_hooks) or foreign(one._forward_pre_hooks) for one in self.children):
            return "the module has hooks, which a compiled graph does not call"
        if any(now is not then for now, then in zip(processors_of(self.module), self.processors, strict=True)):
            return "its attention processors were changed"
        return None

    def notice(self, line: str) -> None:
        """Say something once."""
        if line not in self.told:
            self.told.add(line)
            self.say(line)

    def run(
        self, part: str, module: Callable[[], nn.Module], inputs: dict[str, Tensor], odd: Any = None
    ) -> Tensor | None:
        """The output of the engine; None where the call has to be eager, which is said. `odd`: a graph of its own."""
        variant = (tuple(inputs), odd)
        if why := self.obstacle():
            self.notice(f"the {part} runs eager, not with {self.engine.name}: {why}")
            return None
        if variant not in self.runs:
            self.runs[variant] = ready(self.engine, Graph(part, module().eval(), inputs, bool(odd)), self.say)
        return self.runs[variant](inputs)


class CompiledUNet(Part):
    """A UNet that is called as diffusers' UNet2DConditionModel is."""

    def __call__(self, sample: Tensor, timestep: Tensor, return_dict: bool = True, **kwargs: Any) -> tuple[Tensor]:
        """(row, c, h, w) and a timestep → a tuple of the prediction."""
        assert not return_dict, "a compiled UNet answers with a tuple"
        inputs = unet_inputs(sample, timestep, **kwargs)
        halved = 2 ** (len(self.config.block_out_channels) - 1)
        # a side that cannot be halved evenly takes another way through the UNet, with sizes that are fixed
        odd = tuple(sample.shape[2:]) if any(side % halved for side in sample.shape[2:]) else None
        out = self.run("unet", lambda: Predict(self.module, tuple(inputs)), inputs, odd)
        return self.module(sample, timestep, return_dict=False, **kwargs) if out is None else (out,)


class CompiledVAE(Part):
    """A VAE that decodes with an engine, and encodes as before."""

    def decode(self, latents: Tensor, return_dict: bool = True) -> tuple[Tensor]:
        """(image, c, h, w) → a tuple of the pictures (image, 3, height, width) in [-1, 1]."""
        assert not return_dict, "a compiled VAE answers with a tuple"
        inputs = {"latents": latents.contiguous()}
        out = self.run("vae.decoder", lambda: Decode(self.module), inputs)
        return self.module.decode(latents, return_dict=False) if out is None else (out,)


class CompiledStates(Part):
    """The layers of a text encoder, run by an engine; `Tower.states` is one."""

    def __init__(self, tower: Tower, part: str, engine: Engine, say: Say):
        super().__init__(tower.core, engine, say)
        self.tower, self.part = tower, part

    def __call__(self, rows: Tensor) -> tuple[Tensor, ...] | None:
        """(window, position, dim) → all hidden states and the final ones; None where the encoder has to run itself."""
        out = self.run(self.part, lambda: HiddenStates(self.tower), {"rows": rows.contiguous()})
        return None if out is None else out.unbind(1)


def foreign(hooks: Mapping[int, Any]) -> bool:
    """Whether there are hooks beside transformers' own, by which it collects hidden states."""
    return any(not str(getattr(hook, "__module__", "")).startswith("transformers.") for hook in hooks.values())


def processors_of(module: Any) -> list[Any]:
    """The attention processors of a UNet or VAE; what edits attention replaces them."""
    return list(getattr(module, "attn_processors", {}).values())


def ready(engine: Engine, graph: Graph, say: Say) -> Run:
    """A graph as a function: from the cache, or compiled now, which is said with what it took."""
    if engine.depends_on(graph) is None:
        return engine.load(graph, Path())
    began = time.perf_counter()

    def compiling(place: Path) -> None:
        millions = sum(p.numel() for p in graph.module.parameters()) / 1e6
        say(f"{engine.name}: compiling the {graph.part} ({millions:.1f} M parameters), once for this machine …")
        engine.compile(graph, place)

    folder, made = Entry(engine, graph).ready(compiling, say)
    run = engine.load(graph, folder)
    if made:
        say(f"{engine.name}: compiled in {time.perf_counter() - began:.0f} s, kept in {folder}")
    return run


def with_engine(model: Model, engine: Engine, say: Say = print, decoder: bool = True) -> Model:
    """A model whose UNet and VAE decoder are run by an engine, and its text encoders where the engine's `text_encoder`
    is true; scheduler and scores stay as they are.

    What an engine cannot do falls back to eager for that call, and `say` is told once.

    Raises EngineError where the engine is not here, or does not run on the model's device or in its number type.
    """
    unet, vae = eager_part(model.unet), eager_part(model.vae)
    towers = tuple(replace(tower, states=None) for tower in model.towers)
    if engine.name == "eager":
        return replace(model, towers=towers, unet=unet, vae=vae, engine=engine.name)
    for part in (unet, *(tower.encoder for tower in towers)):
        engine.check(part.device, part.dtype)
    decoded: Any = CompiledVAE(vae, engine, say) if decoder and vae.dtype == unet.dtype else vae
    compiled: Any = CompiledUNet(unet, engine, say)
    if getattr(engine, "text_encoder", False):
        parts = [f"text_encoder{f'_{n + 1}' if n else ''}" for n in range(len(towers))]
        towers = tuple(
            replace(tower, states=CompiledStates(tower, part, engine, say))
            for tower, part in zip(towers, parts, strict=True)
        )
    return replace(model, towers=towers, unet=compiled, vae=decoded, engine=label(engine))


def label(engine: Engine) -> str:
    """What pictures say that ran their UNet: the engine's name, with its settings where it is not exact.

    >>> from embedlab.engines import OpenVINO
    >>> label(OpenVINO()), label(OpenVINO("bf16"))
    ('openvino', "openvino (OpenVINO(precision='bf16'))")
    """
    return engine.name if engine.exact else f"{engine.name} ({engine})"


def eager_part(part: Any) -> Any:
    """A part as diffusers has it."""
    return part.module if isinstance(part, Part) else part
