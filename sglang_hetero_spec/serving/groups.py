"""Which servers are up at the same time, so that passes alternate and drift of the machine hits all alike."""

from __future__ import annotations

from collections.abc import Sequence

from sglang_hetero_spec.doctor_machine import available_memory
from sglang_hetero_spec.serving.server import ServerPlan

# Beside the weights: interpreter, libraries and buffers of one server's three processes, on a CPU.
SERVER_BYTES = 3_000_000_000
_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


class TooLarge(ValueError):
    """Not even one server fits. need, free: bytes."""

    def __init__(self, need: int, free: int) -> None:
        super().__init__(
            f"About {need / 2**30:.1f} GB of memory are needed and {free / 2**30:.1f} GB are free; close other programs"
        )


def groups(plans: Sequence[ServerPlan], device: str, need: int) -> list[list[ServerPlan]]:
    """As many at once as the memory holds (idle servers sleep). need: bytes of one, as by `server_bytes`.

    On CUDA, and where the system does not tell, all. Raises TooLarge.
    """
    free = available_memory()
    if device != "cpu" or free is None or not plans:
        return [list(plans)]
    if need > free:
        raise TooLarge(need, free)
    size = free // need
    return [list(plans[start : start + size]) for start in range(0, len(plans), size)]


def server_bytes(num_params: int, dtype: str) -> int:
    """Bytes that one server takes on a CPU."""
    return SERVER_BYTES + num_params * _BYTES.get(dtype, 4)
