"""A module and its inputs → its layers: shapes, parameters and FLOPs, without weights and without arithmetic.

The forward runs once on fake tensors, which have a shape, a dtype and a device, and no numbers. torchinfo reads shapes,
kernels and parameters; torch's FlopCounterMode reads FLOPs. Where the first is wrong it is put right: it misses inputs
that are handed over by name, and shows the pooled output of a text encoder in place of its hidden states. The second
does not know the CPU's fused attention; it is told that it costs what every attention costs.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils import flop_counter
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from embedlab.structure.values import Layer, Shape


class Call(nn.Module):
    """A part under its name, called with inputs by name; it stays on the device where it is."""

    def __init__(self, name: str, part: nn.Module):
        super().__init__()
        self.name = name
        self.add_module(name, part)

    def to(self, *args: Any, **kwargs: Any) -> Call:
        return self  # torchinfo moves what it is given, and fake tensors cannot be moved in place

    def forward(self, **inputs: Any) -> Any:
        return getattr(self, self.name)(**inputs)


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of tensors that are made while it is entered and are still alive.

    >>> with LiveBytes() as seen:
    ...     kept = torch.zeros(100)
    ...     for _ in range(3):
    ...         passing = torch.zeros(1000) + 1
    >>> seen.now, seen.peak
    (4400, 12400)
    """

    def __init__(self, known: Any = ()):
        super().__init__()
        self.now = self.peak = 0
        self._known = {tensor.untyped_storage()._cdata for tensor in known}
        self._alive: dict[int, Any] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._meet(tensor.untyped_storage())
        return out

    def _meet(self, storage: Any) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known or key in self._alive:
            return

        def gone(_: Any) -> None:
            del self._alive[key]
            self.now -= size

        self._alive[key] = weakref.ref(storage, gone)
        self.now += size
        self.peak = max(self.peak, self.now)


def layers_of(name: str, make: Callable[[], tuple[nn.Module, Mapping[str, Any]]]) -> tuple[tuple[Layer, ...], int]:
    """The layers of a part in the order of their calls, and the most bytes that are alive at once.

    `make` gives the module and its inputs; it is called where every new tensor is a fake one.
    """
    import torchinfo

    with FakeTensorMode():
        part, inputs = make()
        call = Call(name, part)
        taken: dict[int, Shape] = {}
        given: dict[int, Shape] = {}
        hooks = [hook for module in call.modules() for hook in _watched(module, taken, given)]
        counter = flop_counter.FlopCounterMode(display=False, custom_mapping=FUSED)
        known = [*call.parameters(), *call.buffers(), *(t for t in tree_leaves(inputs) if isinstance(t, Tensor))]
        with counter, LiveBytes(known) as memory:
            found = torchinfo.summary(call, input_data=dict(inputs), device="cpu", depth=99, col_names=(), verbose=0)
        for hook in hooks:
            hook.remove()
    counts = {path: sum(by.values()) for path, by in counter.get_flop_counts().items()}
    return _layers(found.summary_list[1:], counts, taken, given), memory.peak


def _watched(module: nn.Module, taken: dict[int, Shape], given: dict[int, Shape]) -> list[Any]:
    """Note the shapes that torchinfo does not see: inputs by name, and the hidden states of a text encoder."""

    def before(module: nn.Module, args: Any, kwargs: Any) -> None:
        tensors = [t for t in tree_leaves([args, kwargs]) if isinstance(t, Tensor)]
        if tensors:
            taken.setdefault(id(module), tuple(tensors[0].shape))

    def after(module: nn.Module, args: Any, out: Any) -> None:
        with suppress(AttributeError):
            given[id(module)] = tuple(out.last_hidden_state.shape)

    return [module.register_forward_pre_hook(before, with_kwargs=True), module.register_forward_hook(after)]


def _layers(
    infos: list[Any], counts: Mapping[str, int], taken: Mapping[int, Shape], given: Mapping[int, Shape]
) -> tuple[Layer, ...]:
    paths: dict[int, str] = {}
    again: dict[int, int] = {}  # bytes of outputs of modules that are called more than once
    first: list[Any] = []
    for info in infos:
        if info.layer_id in paths:
            again[info.layer_id] = again.get(info.layer_id, 0) + info.output_bytes
            continue
        above = paths.get(info.parent_info.layer_id) if info.parent_info else None
        paths[info.layer_id] = f"{above}.{info.var_name}" if above else info.var_name
        first.append(info)
    used = {paths[i.layer_id] for i in first if i.executed or i.num_params}
    inside: dict[str, list[Layer]] = {}
    made: dict[str, Layer] = {}
    for info in reversed(first):  # what is inside comes before what holds it
        path = paths[info.layer_id]
        below = inside.get(path, [])
        if path not in used and not below:
            continue
        within = sum(layer.flops for layer in below)
        flops = counts.get(f"Call.{path}", within)
        out = info.output_bytes + again.get(info.layer_id, 0)
        layer = Layer(
            name=path,
            kind=info.class_name,
            depth=info.depth - 1,
            input=tuple(info.input_size) or taken.get(info.layer_id, ()),
            output=given.get(info.layer_id) or tuple(info.output_size),
            kernel=tuple(info.kernel_size or ()),
            stride=tuple(getattr(info.module, "stride", ())),
            parameters=info.num_params,
            own_parameters=info.num_params - sum(layer.parameters for layer in below),
            flops=flops,
            own_flops=flops - within,
            weights=info.param_bytes,
            activations=sum(layer.activations for layer in below) if below else out,
        )
        made[path] = layer
        inside.setdefault(path.rpartition(".")[0], []).append(layer)
    return tuple(made[paths[info.layer_id]] for info in first if paths[info.layer_id] in made)


def _attention(query: Any, key: Any, value: Any, *_: Any, out_shape: Any = None, **more: Any) -> int:
    return int(flop_counter.sdpa_flop_count(query, key, value))


FUSED = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention}
