"""Reads a safetensors file's header alone: eight bytes of length, JSON, then the data."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sglang_hetero_spec.pool.errors import PoolError

_MAX_HEADER_BYTES = 100_000_000


@dataclass(frozen=True)
class CheckpointSize:
    """Parameters and bytes of all *.safetensors files of a checkpoint."""

    num_params: int
    weight_bytes: int


def checkpoint_size(folder: Path) -> CheckpointSize:
    """Size of a checked checkpoint, from the headers of its weights."""
    params = num_bytes = 0
    for path in sorted(folder.glob("*.safetensors")):
        for tensor in read_header(path).values():
            params += math.prod(tensor["shape"])
            num_bytes += tensor["data_offsets"][1] - tensor["data_offsets"][0]
    return CheckpointSize(params, num_bytes)


def read_header(path: Path) -> dict[str, Any]:
    """Tensor name -> {dtype, shape, data_offsets}; PoolError if the file is truncated or not safetensors."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(size - 8, _MAX_HEADER_BYTES):
                raise ValueError
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        ends = [entry["data_offsets"][1] for entry in header.values() if math.prod(entry["shape"]) >= 0]
        if not ends or max(ends) != size - 8 - length:
            raise ValueError
        return header
    except OSError as error:
        raise PoolError(f"{path} cannot be read ({error.strerror}); check the path and its permissions.") from None
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        raise PoolError(f"{path} is truncated or not a safetensors file; copy or save the weights again.") from None
