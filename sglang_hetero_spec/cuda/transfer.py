"""Small host values on their way to the device, without waiting for it."""

from __future__ import annotations

from collections.abc import Sequence

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
