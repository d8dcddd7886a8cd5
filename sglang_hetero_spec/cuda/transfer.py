"""Small host values on their way to the device, without waiting for it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch


def from_host(
    values: torch.Tensor | np.ndarray | Sequence[int], device: torch.device, dtype: torch.dtype = torch.int64
) -> torch.Tensor:
    """The values on the device. `torch.tensor(values, device=...)` would wait until all that is queued has run: it
    copies from pageable memory. Here the copy is queued like a kernel; torch keeps the pinned memory until it ran."""
    host = torch.as_tensor(values, dtype=dtype)
    if device.type != "cuda":
        return host.to(device)
    return host.pin_memory().to(device, non_blocking=True)


def kept_on_device(values: Sequence[int], device: torch.device, dtype: torch.dtype = torch.int64) -> torch.Tensor:
    """As from_host, for what is the same at many steps (which requests are whose): it is copied once. Nobody may write
    to it."""
    # A stream may read only what it has copied itself, or waited for.
    stream = torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else 0
    return _kept(tuple(values), device, dtype, stream)


@lru_cache(maxsize=1024)
def _kept(values: tuple[int, ...], device: torch.device, dtype: torch.dtype, stream: int) -> torch.Tensor:
    return from_host(values, device, dtype)
