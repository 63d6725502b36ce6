"""A device that is not there: tensors that say they are on `cuda` and hold their numbers on the CPU.

While `Pretended` is on, what a GPU refuses is refused (tensors of two devices, number types that a kernel does not
mix), and what would make the CPU wait for the GPU is written down. The numbers are the CPU's, to the bit. To torch's
C++ these tensors are on the meta device: of devices without a driver, the one whose tensors can be indexed.
"""

from __future__ import annotations

import copy
import linecache
import traceback
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from embedlab import Model

CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")
ROOT = str(Path(__file__).resolve().parents[1])
COPIES = {"to", "_to_copy", "copy_"}
BY_INDEX = {"index", "index_put", "index_put_", "_index_put_impl_"}
WAITS = {  # what hands the CPU a number, and what has a size or an error that depends on numbers
    *("item", "_local_scalar_dense", "is_nonzero", "nonzero", "nonzero_numpy", "argwhere", "masked_select"),
    *("equal", "allclose", "_unique2", "unique_dim", "unique_consecutive", "bincount", "repeat_interleave"),
    *("linalg_solve", "linalg_inv", "inverse", "linalg_cholesky", "linalg_eigh", "linalg_svd", "linalg_lstsq"),
    "_linalg_check_errors",
}
ONE_TYPE = {  # kernels of a GPU that take one number type
    *("linear", "matmul", "mm", "bmm", "addmm", "baddbmm", "einsum", "dot", "scaled_dot_product_attention"),
    *("conv2d", "convolution", "layer_norm", "native_layer_norm", "group_norm", "native_group_norm"),
}


class Far(Tensor):
    """A tensor that says it is on the device; `value` holds its numbers."""

    value: Tensor

    @staticmethod
    def __new__(cls, value: Tensor) -> Far:
        layout = {"strides": value.stride(), "storage_offset": value.storage_offset(), "dtype": value.dtype}
        made: Far = Tensor._make_wrapper_subclass(cls, value.shape, device="meta", **layout)
        made.value = value
        return made

    device = property(lambda self: CUDA)
    is_cuda = property(lambda self: True)
    is_cpu = is_meta = property(lambda self: False)
    __torch_function__ = torch._C._disabled_torch_function_impl

    def __getitem__(self, index: Any) -> Any:
        return super().__getitem__(indices(index))

    def __setitem__(self, index: Any, value: Any) -> None:
        super().__setitem__(indices(index), value)

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def __repr__(self) -> str:
        return f"Far({tuple(self.shape)}, {self.dtype})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"{func} of a tensor on the pretended device, which is not on")


def indices(index: Any) -> Any:
    """Lists of rows as tensors, which C++ would make out of sight and leave without numbers."""
    if isinstance(index, tuple):
        return tuple(indices(one) for one in index)
    return torch.tensor(index) if isinstance(index, list) else index


class Pretended(TorchDispatchMode):
    """The device is there; `waits` has a line for each time that the CPU would wait for it."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []
        waits = mock.patch("torch.cuda.synchronize", side_effect=lambda device=None: self.wait("synchronize"))
        name = mock.patch("torch.cuda.get_device_name", return_value="pretended")
        self.patches = [waits, name, mock.patch("torch.cuda._lazy_init")]

    def __enter__(self) -> Pretended:
        for patch in self.patches:
            patch.start()
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor makes a tensor here and sends it, as it says
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        torch._C._set_only_lift_cpu_tensors(False)
        for patch in self.patches:
            patch.stop()

    def wait(self, name: str) -> None:
        """Write down what waits, the line that asks for it, and the last of embedlab's or a test's that led there."""
        frames = [f for f, _ in traceback.walk_stack(None) if f.f_code.co_filename.find("/torch/") < 0]
        frames = [f for f in frames if f.f_code.co_filename != __file__]
        ours = [f for f in frames if f.f_code.co_filename.startswith((f"{ROOT}/embedlab", f"{ROOT}/tests"))]
        places = dict.fromkeys(place(frame) for frame in (frames[:1] + ours[:1]))
        self.waits.append(f"{name} at {', from '.join(places)}")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = func.overloadpacket.__name__, kwargs or {}
        leaves = tree_leaves((args, kwargs))
        far = [leaf for leaf in leaves if isinstance(leaf, Far)]
        asked = [leaf.type in ("cuda", "meta") for leaf in leaves if isinstance(leaf, torch.device)]
        if name in ("pin_memory", "_pin_memory"):
            pinned = args[0].clone()
            pinned.pinned = True
            return pinned
        if not far and not any(asked):
            return func(*args, **kwargs)
        if name in COPIES:
            return self.copied(func, name, args, kwargs, asked)
        near = [leaf for leaf in leaves if isinstance(leaf, Tensor) and not isinstance(leaf, Far)]
        assert not any(one.is_meta for one in near), f"{func} of a tensor without numbers, made out of sight"
        self.check(func, name, far, near)
        owners = {id(one.value): one for one in far}

        def outer(leaf: Any) -> Any:
            if not isinstance(leaf, Tensor):
                return leaf
            owner = owners.get(id(leaf))
            assert owner is None or owner.shape == leaf.shape, f"{func} gives a tensor another shape in place"
            return Far(leaf) if owner is None else owner

        out = func(*tree_map(inner, args), **tree_map(inner, kwargs))
        return tree_map(outer, out) if far or any(asked) else out

    def copied(self, func: Any, name: str, args: Any, kwargs: Any, asked: list[bool]) -> Any:
        """A tensor as another number type, or on the other device, which waits unless it comes from pinned memory."""
        here = args[1] if name == "copy_" else args[0]
        other = args[0] if name == "copy_" else args[1] if func._overloadname == "other" else here
        there = asked[0] if asked else isinstance(other, Far)
        moved = isinstance(here, Far) is not there
        in_time = there and hasattr(here, "pinned") and any(one is True for one in (*args, *kwargs.values()))
        if moved and not in_time:
            self.wait(name)
        out = func(*tree_map(inner, args), **tree_map(inner, kwargs))
        if name == "copy_":
            return args[0]
        if out is inner(here):
            if not moved:
                return here
            out = out.clone()
        return Far(out) if there else out

    def check(self, func: Any, name: str, far: list[Far], near: list[Tensor]) -> None:
        """Refuse what a GPU refuses; write down what waits."""
        by_index = name in BY_INDEX and far
        alone = [one for one in near if one.ndim or torch.Tag.pointwise not in func.tags]
        if far and alone and not (by_index and all(one.dtype in (torch.long, torch.bool) for one in alone)):
            shapes = ", ".join(str(tuple(one.shape)) for one in alone)
            raise RuntimeError(f"{name} of tensors on two devices: {shapes} on the CPU beside {far}")
        kinds = {one.dtype for one in far if one.is_floating_point()}
        if name in ONE_TYPE and len(kinds) > 1:
            raise RuntimeError(f"{name} of tensors of two number types: {far}")
        masks = name in BY_INDEX and any(one.dtype == torch.bool for one in far[1:])
        if far and ((name in WAITS and func._overloadname != "self_int") or alone or masks):
            self.wait(name)


def place(frame: FrameType) -> str:
    """The file, the number and the text of a line."""
    file, line = frame.f_code.co_filename, frame.f_lineno
    return f"{Path(file).name}:{line}: {linecache.getline(file, line).strip()}"


def inner(leaf: Any) -> Any:
    """What the CPU computes with."""
    return leaf.value if isinstance(leaf, Far) else CPU if isinstance(leaf, torch.device) else leaf


def sent(model: Model) -> Model:
    """A model whose weights are on the pretended device; the one that was given keeps its own."""
    known: dict[int, Any] = {}

    def module(given: Any) -> Any:
        known.update({id(value): value for value in (*given.parameters(), *given.buffers())})
        made = copy.deepcopy(given, known)
        for part in made.modules():
            for name, value in part._parameters.items():
                if value is not None and not isinstance(value, Far):
                    part._parameters[name] = nn.Parameter(Far(value.data), requires_grad=False)
            for name, value in part._buffers.items():
                part._buffers[name] = value if value is None or isinstance(value, Far) else Far(value)
        return made

    towers = tuple(replace(tower, encoder=module(tower.encoder)) for tower in model.towers)
    scorer = model.scorer
    if scorer is not None:
        text = replace(scorer.text, encoder=module(scorer.text.encoder))
        scorer = replace(scorer, text=text, image=module(scorer.image))
    return replace(model, towers=towers, unet=module(model.unet), vae=module(model.vae), scorer=scorer)
