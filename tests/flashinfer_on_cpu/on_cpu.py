"""FlashInfer's own wrappers and SGLang's own backend in a process without CUDA."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from tests.flashinfer_on_cpu import compiled

_IS_CUDA = torch.Tensor.is_cuda.__get__  # type: ignore[attr-defined]


@contextmanager
def pretending() -> Iterator[None]:
    OnCpu.pretends = True
    try:
        yield
    finally:
        OnCpu.pretends = False


class OnCpu(TorchFunctionMode):
    """`cuda` is the CPU, and nothing is pinned. pretends: every tensor says that it is on a GPU."""

    pretends = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: dict | None = None) -> Any:
        kwargs = dict(kwargs or {})
        if "device" in kwargs and str(kwargs["device"]).startswith("cuda"):
            kwargs["device"] = "cpu"
        kwargs.pop("pin_memory", None)
        if OnCpu.pretends and func == _IS_CUDA:
            return True
        if func is torch.Tensor.pin_memory:
            return args[0]
        return func(*args, **kwargs)


def install() -> None:
    """Once in a process, before SGLang's backend is imported."""
    import flashinfer.cascade
    import flashinfer.decode
    import flashinfer.prefill
    import flashinfer.utils

    prefill, decode = flashinfer.prefill, flashinfer.decode
    cascade = SimpleNamespace(merge_state=compiled.merge_state)
    for module in (prefill, decode):
        module.get_batch_prefill_module = lambda backend, *args: _fa2(backend)
        module.device_support_pdl = lambda device: False
    # As on an A100: FlashInfer's fa3 of Hopper and cuDNN of Blackwell are for SGLang's prefill alone.
    flashinfer.utils.get_compute_capability = lambda device: (8, 0)
    decode.get_batch_decode_module = lambda *args: compiled.decode_module
    flashinfer.cascade.get_cascade_module = lambda: cascade
    # The package has a function of that name too.
    packbits: Any = sys.modules["flashinfer.quantization.packbits"]
    packbits.get_quantization_module = lambda: SimpleNamespace(segment_packbits=compiled.segment_packbits)
    torch.cuda.device = lambda device: nullcontext()
    from sglang.srt.speculative import eagle_utils

    eagle_utils.default_tree_mask_mode = lambda: eagle_utils.TreeMaskMode.FULL_MASK
    _import_backend()


def _fa2(backend: str) -> SimpleNamespace:
    assert backend == "fa2", backend
    return _wrapped


def _paged(*args: Any) -> None:
    # get_batch_prefill_module puts q's, k's and v's scales between the tensors and the numbers, and so do we.
    compiled.paged_run(*args)


_wrapped = SimpleNamespace(plan=compiled.prefill_plan, paged_run=_paged, ragged_run=compiled.ragged_run)


def _import_backend() -> None:
    """With the names that it imports only where FlashInfer can run."""
    import sglang.srt.utils as utils

    before = utils.is_flashinfer_available
    utils.is_flashinfer_available = lambda: True
    try:
        import sglang.srt.layers.attention.flashinfer_backend  # noqa: F401
    finally:
        utils.is_flashinfer_available = before
