"""Checks a safetensors file from its header alone: eight bytes of length, JSON, then the data."""

from __future__ import annotations

import json
from pathlib import Path

from sglang_hetero_spec.pool.errors import PoolError

_MAX_HEADER_BYTES = 100_000_000


def check_safetensors(path: Path) -> None:
    """PoolError if the file is truncated or not safetensors. Reads no tensor."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(size - 8, _MAX_HEADER_BYTES):
                raise ValueError
            header = json.loads(file.read(length))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        if not ends or max(ends) != size - 8 - length:
            raise ValueError
    except OSError as error:
        raise PoolError(
            f"{path} cannot be read ({error.strerror}); check the path and its permissions."
        ) from None
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        raise PoolError(
            f"{path} is truncated or not a safetensors file; copy or save the weights again."
        ) from None
