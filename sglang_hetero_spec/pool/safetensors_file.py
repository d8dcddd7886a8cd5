"""Reads a safetensors file's header alone: eight bytes of length, JSON, then the data."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sglang_hetero_spec.pool.errors import PoolError

_MAX_HEADER_BYTES = 100_000_000
# Of one number; a tensor's bytes are whole. What safetensors may add later is not checked against its shape.
_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64,
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "F16": 16, "BF16": 16, "F32": 32, "F64": 64, "C64": 64,
}  # fmt: skip


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
        if not header or not _tiles(sorted(map(_byte_range, header.values())), size - 8 - length):
            raise ValueError
        return header
    except OSError as error:
        raise PoolError(f"{path} cannot be read ({error.strerror}); check the path and its permissions.") from None
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        raise PoolError(f"{path} is truncated or not a safetensors file; copy or save the weights again.") from None


def _byte_range(entry: dict[str, Any]) -> tuple[int, int]:
    """Where a tensor lies in the data; ValueError if its shape has another size."""
    shape, (begin, end) = entry["shape"], entry["data_offsets"]
    if any(type(number) is not int or number < 0 for number in (*shape, begin, end)):
        raise ValueError
    bits = _BITS.get(entry["dtype"])
    if bits is not None and (end - begin) * 8 != math.prod(shape) * bits:
        raise ValueError
    return begin, end


def _tiles(ranges: Iterable[tuple[int, int]], size: int) -> bool:
    """Whether the ranges, ascending, are the whole data with no gap and no overlap."""
    at = 0
    for begin, end in ranges:
        if begin != at or end < begin:
            return False
        at = end
    return at == size
