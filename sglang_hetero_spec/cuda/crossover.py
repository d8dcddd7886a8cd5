"""Which of the two ways of tree verification is taken: SGLang's own (one mask over context and tree), or two parts.

By measurement: a row of MEASURED says from which context on two parts were faster on a device. What was not measured is
verified in SGLang's way. benchmarks/gpu_run.py prints rows to put here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sglang_hetero_spec.cuda.support import VERIFY_SWITCH, switch

STOCK, PARTS = "stock", "parts"


@dataclass(frozen=True)
class Crossover:
    """batch_size: requests; width: nodes of each tree; context: the shortest context, of those measured, from which on
    two parts were never slower; None: at no context that was measured."""

    device: str
    batch_size: int
    width: int
    context: int | None


# Nothing has been measured yet: no GPU was lent when this was written.
MEASURED: tuple[Crossover, ...] = ()


def choose(
    device: str, batch_sizes: Sequence[int], width: int, context: int, rows: Sequence[Crossover] = MEASURED
) -> str:
    """STOCK or PARTS for trees of `width` nodes behind `context` tokens, for all of the batch sizes.

    device: torch.cuda.get_device_name(). Between rows the one that wants the longer context decides; beyond the largest
    batch or tree that was measured nothing is known.
    """
    asked = switch(VERIFY_SWITCH)
    if asked != "auto":
        return asked
    needed = [_needed(device, batch_size, width, rows) for batch_size in batch_sizes]
    known = [context for context in needed if context is not None]
    return PARTS if needed and len(known) == len(needed) and max(known) <= context else STOCK


def _needed(device: str, batch_size: int, width: int, rows: Sequence[Crossover]) -> int | None:
    """Context from which on two parts are known not to be slower, or None. The rows on all four sides must say so."""
    ours = [row for row in rows if row.device == device]
    sizes = _around({row.batch_size for row in ours}, batch_size)
    widths = _around({row.width for row in ours}, width)
    asked = [row for row in ours if row.batch_size in sizes and row.width in widths]
    if not sizes or not widths or len(asked) < len(sizes) * len(widths):
        return None
    contexts = [row.context for row in asked if row.context is not None]
    return max(contexts) if len(contexts) == len(asked) else None


def _around(measured: set[int], value: int) -> set[int]:
    """The measured values on both sides of one within their range, empty beyond it."""
    below, above = [m for m in measured if m <= value], [m for m in measured if m >= value]
    return {max(below), min(above)} if below and above else set()
