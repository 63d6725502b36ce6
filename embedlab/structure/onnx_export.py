"""Parts of a model as ONNX files that netron opens, each checked against torch in ONNX Runtime; float32, on the CPU.

A text encoder takes the summed rows of tokens and positions, so that edited rows go in; it gives the hidden state that
the UNet is conditioned on, and the final one, from which the pooled output is read (through the projection where it has
one). The UNet and the halves of the VAE take what they take in torch, by the same names, at the sizes of the anatomy.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from embedlab.engines.graphs import noise_for
from embedlab.engines.onnx_file import write_onnx
from embedlab.errors import ConfigError, ModelError, first_line
from embedlab.files import make_folder
from embedlab.limits import WINDOW
from embedlab.models import LAYOUTS, Model, Source
from embedlab.models.parts import Decode, Encode, Predict, Text
from embedlab.structure.anatomy import Anatomy, described

NEEDED = ("onnx", "onnxscript", "onnxruntime")
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
            inputs = noise_for(model.unet, part.rows, (whole.input[2], whole.input[3]), anatomy.tokens)
            yield part.name, Predict(model.unet, tuple(inputs)), tuple(inputs.values())
        else:
            half = (Encode if part.name == "vae.encoder" else Decode)(model.vae)
            yield part.name, half, (noise(*whole.input),)


def exported(name: str, module: nn.Module, inputs: tuple[Tensor, ...], folder: Path) -> tuple[Path, float]:
    """The file of a part, which appears when it is whole and as torch has it, and how far it is from torch."""
    module = module.eval()
    with TemporaryDirectory(dir=folder, prefix=".onnx.") as inside:
        path = Path(inside, f"{name.replace('.', '_')}.onnx")
        try:
            write_onnx(module, path, inputs, getattr(module, "names", None))
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
