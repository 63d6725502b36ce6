"""Parts of a model as ONNX files that netron opens, each checked against torch in ONNX Runtime; float32, on the CPU.

A text encoder takes the summed rows of tokens and positions, so that edited rows go in; it gives the hidden state that
the UNet is conditioned on, and the final one, from which the pooled output is read (through the projection where it has
one). The UNet and the halves of the VAE take what they take in torch. Shapes are those of the anatomy.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from embedlab.clip import Tower
from embedlab.errors import ConfigError, ModelError, first_line
from embedlab.files import make_folder
from embedlab.limits import WINDOW
from embedlab.models import LAYOUTS, Model, Source
from embedlab.models.silence import silence_libraries
from embedlab.structure.anatomy import Anatomy, described
from embedlab.structure.building import Decode, Encode

NEEDED = ("onnx", "onnxscript", "onnxruntime")
LARGEST = 1 << 30  # bytes of weights in one file; protobuf ends at twice as many
NEAR = 1e-3  # of the largest value of an output: float32 sums in another order stay far below


@dataclass(frozen=True)
class Exported:
    """A part as a file, and how far ONNX Runtime is from torch on the same inputs: the largest difference of a value,
    as a share of the largest value.
    """

    name: str
    path: Path
    difference: float

    def __str__(self) -> str:
        return f"{self.path}  (ONNX Runtime and torch differ by {self.difference:.1e} of the largest value)"


class Text(nn.Module):
    """A text encoder from the summed rows of tokens and positions."""

    def __init__(self, tower: Tower):
        super().__init__()
        self.core, self.projection = tower.core, getattr(tower.encoder, "text_projection", None)
        self.layer, self.final_norm = tower.layer, tower.final_norm

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        shut = torch.full((rows.shape[1], rows.shape[1]), torch.finfo(rows.dtype).min, dtype=rows.dtype)
        causal = torch.triu(shut, diagonal=1)[None, None]
        states = [rows]
        for layer in self.core.encoder.layers:
            states.append(layer(states[-1], attention_mask=causal))
        last = self.core.final_layer_norm(states[-1])
        read = states[-1 - self.layer]
        hidden = self.core.final_layer_norm(read) if self.final_norm else read
        return hidden, last if self.projection is None else self.projection(last)


class Predict(nn.Module):
    """A UNet with its inputs in a row; SDXL's pooled text and sizes come last."""

    def __init__(self, unet: Any):
        super().__init__()
        self.unet = unet

    def forward(self, latents: Tensor, timestep: Tensor, hidden: Tensor, *added: Tensor) -> Tensor:
        more = dict(zip(("text_embeds", "time_ids"), added, strict=True)) if added else None
        predicted: Tensor = self.unet(latents, timestep, hidden, added_cond_kwargs=more, return_dict=False)[0]
        return predicted


def export(source: Source, anatomy: Anatomy, folder: Path) -> Iterator[Exported]:
    """Write each part into a folder, one after the other, at the sizes of the anatomy.

    Raises ConfigError where the packages are missing and for what cannot be exported, or comes out as something else;
    ModelError where there are no weights.
    """
    source = exportable(source)
    make_folder(folder)
    model = replace(source, device="cpu", dtype="float32").load()
    for part, module, inputs in parts_of(model, anatomy):
        yield Exported(part, *exported(part, module, inputs, folder))


def exportable(source: Source) -> Source:
    """The source whose weights are there; refuses to begin without weights, or without the packages that it takes."""
    if lacking := [name for name in NEEDED if find_spec(name) is None]:
        raise ConfigError(f"an export as ONNX needs the package {lacking[0]}: pip install 'embedlab[onnx]'.")
    source, name, _ = described(source)
    if isinstance(source.location, Path) and LAYOUTS in source.location.parents:
        raise ModelError(
            f"ONNX files hold weights, and of '{name}' there are none on this machine; name a folder or a file: "
            "model=custom model.name=PATH."
        )
    return source


def parts_of(model: Model, anatomy: Anatomy) -> Iterator[tuple[str, nn.Module, tuple[Tensor, ...]]]:
    """The parts of a loaded model with inputs of these sizes, filled with noise of a fixed seed."""
    random = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random)

    for part in anatomy.parts:
        whole = part.whole
        if part.name.startswith("text_encoder"):
            tower = model.towers[[one.name for one in anatomy.parts].index(part.name)]
            rows = tower.token_table[torch.randint(1000, (part.rows, WINDOW), generator=random)]
            yield part.name, Text(tower), (rows + tower.position_table[:WINDOW],)
        elif part.name == "unet":
            width = sum(tower.width for tower in model.towers)
            inputs = [noise(*whole.input), torch.tensor(500.0), noise(part.rows, anatomy.tokens, width)]
            if model.unet.config.addition_embed_type == "text_time":
                sizes = torch.tensor([[*anatomy.size, 0, 0, *anatomy.size]] * part.rows, dtype=torch.float32)
                inputs += [noise(part.rows, model.towers[-1].encoder.config.projection_dim), sizes]
            yield part.name, Predict(model.unet), tuple(inputs)
        else:
            half = (Encode if part.name == "vae.encoder" else Decode)(model.vae)
            yield part.name, half, (noise(*whole.input),)


def exported(name: str, module: nn.Module, inputs: tuple[Tensor, ...], folder: Path) -> tuple[Path, float]:
    """The file of a part, which appears when it is whole and as torch has it, and how far it is from torch."""
    module = module.eval()
    weights = sum(p.numel() * p.element_size() for p in module.parameters())
    with TemporaryDirectory(dir=folder, prefix=".onnx.") as inside:
        path = Path(inside, f"{name.replace('.', '_')}.onnx")
        try:
            with silence_libraries(), exporter_silent(), torch.no_grad():
                program = torch.onnx.export(module, inputs, dynamo=True, verbose=False)
                assert program is not None
                program.save(path, external_data=weights > LARGEST)
        except Exception as error:
            raise ConfigError(f"the part '{name}' cannot be exported as ONNX: {first_line(error)}") from None
        far = distance(path, module, inputs)
        if not far <= NEAR:
            raise ConfigError(
                f"the part '{name}' gives something else in ONNX Runtime than in torch ({far:.1e} of the largest "
                "value); it is not kept."
            )
        for file in sorted(Path(inside).iterdir(), reverse=True):  # the weights before what names them
            os.replace(file, folder / file.name)
    return folder / path.name, far


@contextlib.contextmanager
def exporter_silent() -> Iterator[None]:
    """Let the exporter say only what is wrong: what it says of torchvision, which nothing here uses, is left out."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logger.setLevel(level)


def distance(path: Path, module: nn.Module, inputs: tuple[Tensor, ...]) -> float:
    """How far ONNX Runtime is from torch."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    given = {one.name: value.numpy() for one, value in zip(session.get_inputs(), inputs, strict=True)}
    with torch.no_grad():
        ours = module(*inputs)
    ours = ours if isinstance(ours, tuple) else (ours,)
    pairs = zip(ours, session.run(None, given), strict=True)
    return max(float((a - torch.from_numpy(b)).abs().max() / a.abs().max()) for a, b in pairs)
