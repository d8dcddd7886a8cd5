"""A CUDA device without CUDA: tensors that say `cuda:0` and keep their values on the CPU, so that our code of a step
runs as it would on a GPU, and every place where the host would wait for the device is seen.

PyTorch's own FakeTensor has no values: behind the first copy to the host there would be nothing to go on with, and
drafters that work on the host could not be run. What PyTorch does on CUDA beneath the dispatcher is modelled here
(index_put_, where, index: aten/src/ATen/native/TensorAdvancedIndexing.cpp, TensorCompare.cpp).
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.weak import WeakTensorKeyDictionary

import sglang_hetero_spec

DEVICE = torch.device("cuda", 0)
_ROOT = Path(sglang_hetero_spec.__file__).parents[1]
REPOSITORY = tuple(f"{_ROOT}/{part}/" for part in ("sglang_hetero_spec", "benchmarks", "tests"))

# What a wait is about.
TO_HOST = "copy to the host"
FROM_HOST = "copy from the host that it waits for"
SHAPE = "a shape that depends on values"
SYNCHRONIZE = "synchronize"

aten = torch.ops.aten
_FREE = {"aten::empty.memory_format", "aten::empty_strided", "aten::new_empty", "aten::empty_like", "aten::detach"}
_FREE |= {"aten::lift_fresh", "aten::_unsafe_view", "aten::is_pinned", "aten::_local_scalar_dense"}


class DeviceTensor(torch.Tensor):
    """held: the values, a tensor on the CPU."""

    held: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> DeviceTensor:
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            layout=held.layout,
            device=DEVICE,
        )
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return Seen().call(func, args, kwargs or {})

    def tolist(self) -> list:
        """One copy, as on CUDA; a wrapper's own would be one for each number."""
        return self.cpu().tolist()

    def data_ptr(self) -> int:
        return self.held.data_ptr()

    def __repr__(self, **_: Any) -> str:
        return f"cuda:0 {self.held!r}"


def on_device(values: Any, dtype: torch.dtype | None = None) -> DeviceTensor:
    """A copy of the values, as if they had always been there."""
    return DeviceTensor(torch.as_tensor(values, dtype=dtype).clone())


def held(values: Any) -> Any:
    """What the host could only see by waiting; for assertions."""
    return tree_map_only(DeviceTensor, lambda tensor: tensor.held, values)


@dataclass(frozen=True)
class Wait:
    """kind: one of those above; op: what was called; place: function of ours, or the test's."""

    kind: str
    op: str
    place: str

    def __str__(self) -> str:
        return f"{self.place}: {self.op} ({self.kind})"


@dataclass
class Seen:
    """waits: in their order. launches: operations that the device was given, by the function of ours that asked for
    them, copies from pinned memory among them (`copies`)."""

    waits: list[Wait] = field(default_factory=list)
    launches: Counter[str] = field(default_factory=Counter)
    copies: Counter[str] = field(default_factory=Counter)
    ops: Counter[tuple[str, str]] = field(default_factory=Counter)
    _pinned: WeakTensorKeyDictionary = field(default_factory=WeakTensorKeyDictionary)

    def wait(self, kind: str, op: str) -> None:
        self.waits.append(Wait(kind, op, _place()))

    def launch(self, op: str) -> None:
        place = _place()
        self.launches[place] += 1
        self.ops[place, op] += 1

    def call(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name = func._schema.name + (f".{func._schema.overload_name}" if func._schema.overload_name else "")
        if func is aten._pin_memory.default:
            pinned = args[0].clone()
            self._pinned[pinned] = True
            return pinned
        given = _tensors((args, kwargs))
        is_there = any(isinstance(tensor, DeviceTensor) for tensor in given)
        wanted = kwargs.get("device")
        goes_there = is_there if wanted is None else torch.device(wanted).type == "cuda"
        if not is_there and not goes_there:
            return func(*args, **kwargs)
        if kwargs.get("pin_memory"):
            raise AssertionError(f"{name} makes pinned memory; that is not modelled here.")
        self._note(func, name, args, kwargs, given, is_there, goes_there)
        if wanted is not None:
            kwargs = {**kwargs, "device": torch.device("cpu")}
        before = {id(tensor.held): tensor for tensor in given if isinstance(tensor, DeviceTensor)}
        found = func(*held(args), **held(kwargs))
        if not goes_there:
            # A copy, although the values lie where they lay.
            return tree_map_only(torch.Tensor, torch.clone, found)

        def there(tensor: torch.Tensor) -> DeviceTensor:
            return before[id(tensor)] if id(tensor) in before else DeviceTensor(tensor)

        return tree_map_only(torch.Tensor, there, found)

    def _note(
        self,
        func: Any,
        name: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        given: list[torch.Tensor],
        is_there: bool,
        goes_there: bool,
    ) -> None:
        if func is aten._local_scalar_dense.default or (is_there and not goes_there):
            self.wait(TO_HOST, name)
            return
        from_host = [tensor for tensor in given if not isinstance(tensor, DeviceTensor)]
        if func is aten._to_copy.default and not is_there:
            self._note_copy(name, args[0], bool(kwargs.get("non_blocking")))
        elif func is aten.copy_.default and from_host:
            if not isinstance(args[0], DeviceTensor):
                self.wait(TO_HOST, name)
                return
            self._note_copy(name, args[1], bool(args[2]) if len(args) > 2 else bool(kwargs.get("non_blocking")))
        elif any(tensor.dim() or not _takes_host_scalar(func, args) for tensor in from_host):
            self.wait(FROM_HOST, name)
        if _has_open_shape(func, args, kwargs):
            self.wait(SHAPE, name)
        if func is aten.equal.default:
            self.wait(TO_HOST, name)
        if not func.is_view and func._schema.name not in _FREE and name not in _FREE:
            self.launch(name)

    def _note_copy(self, name: str, source: torch.Tensor, non_blocking: bool) -> None:
        if non_blocking and source in self._pinned:
            self.copies[_place()] += 1
        else:
            self.wait(FROM_HOST, name)


def _tensors(values: Any) -> list[torch.Tensor]:
    return [leaf for leaf in torch.utils._pytree.tree_leaves(values) if isinstance(leaf, torch.Tensor)]


def _takes_host_scalar(func: Any, args: tuple[Any, ...]) -> bool:
    """Whether a number that lies on the CPU is passed to the kernel, rather than copied to the device first."""
    if func in (aten.index_put_.default, aten.index_put.default, aten._index_put_impl_.default):
        # Then it is masked_fill.
        return _masks(args[1]) == 1
    return func is not aten.where.self


def _masks(indices: Any) -> int:
    return sum(index is not None and index.dtype in (torch.bool, torch.uint8) for index in indices)


def _has_open_shape(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    if func in (aten.index_put_.default, aten.index_put.default, aten._index_put_impl_.default):
        is_fill = isinstance(args[2], torch.Tensor) and not isinstance(args[2], DeviceTensor)
        return _masks(args[1]) > 0 and not is_fill
    if func is aten.index.Tensor:
        return _masks(args[1]) > 0
    if func is aten.repeat_interleave.Tensor:
        return kwargs.get("output_size") is None
    return torch.Tag.dynamic_output_shape in func.tags


def _place() -> str:
    """`file.function` of the innermost frame of this repository: ours, or of what stands in for others' code."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if code.co_filename.startswith(REPOSITORY) and code.co_filename != __file__:
            return f"{Path(code.co_filename).stem}.{code.co_qualname.replace('.<locals>', '')}"
        frame = frame.f_back
    return "?"


class _Watching(TorchDispatchMode):
    def __init__(self, seen: Seen) -> None:
        super().__init__()
        self._seen = seen

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self._seen.call(func, args, kwargs or {})


class StandInKernel:
    """In the place of a Triton kernel: one launch, nothing written."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getitem__(self, grid: Any) -> Callable[..., None]:
        return lambda *args, **kwargs: _now[-1].launch(self._name)


_now: list[Seen] = []


@contextmanager
def watched_device() -> Iterator[Seen]:
    """Without gradients, as SGLang's scheduler runs. Not in inference mode, which hides what calls are made of."""
    seen = Seen()

    def synchronize(*_: Any, **__: Any) -> None:
        seen.wait(SYNCHRONIZE, "synchronize")

    stream = SimpleNamespace(cuda_stream=0, synchronize=synchronize)
    # As FakeTensorMode does: guards that touch no driver, and values that reach a device in a call that is seen.
    torch._C._ensureCUDADeviceGuardSet()
    lifted = torch._C._only_lift_cpu_tensors()
    torch._C._set_only_lift_cpu_tensors(True)
    with (
        mock.patch.object(torch.cuda, "_lazy_init", lambda: None),
        mock.patch.object(torch.cuda, "synchronize", synchronize),
        mock.patch.object(torch.cuda, "current_stream", lambda *_: stream),
        torch.no_grad(),
        _Watching(seen),
    ):
        _now.append(seen)
        try:
            yield seen
        finally:
            _now.pop()
            torch._C._set_only_lift_cpu_tensors(lifted)


@contextmanager
def no_host_waits() -> Iterator[Seen]:
    """AssertionError that names each wait, if there is any inside."""
    with watched_device() as seen:
        yield seen
    assert not seen.waits, "the host waits for the device in " + "; ".join(map(str, seen.waits))
