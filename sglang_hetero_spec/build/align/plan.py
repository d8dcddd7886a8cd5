"""Which rows make which batch: fixed by the seed alone, so that a resumed run goes on with the same ones."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

_WINDOW_ROWS = 1024


@dataclass(frozen=True)
class Plan:
    """`batches` of row indices; `tokens[i]` (unpadded) are seen once batch i is done."""

    batches: tuple[tuple[int, ...], ...]
    tokens: tuple[int, ...]


def budgets(sizes: Sequence[int], is_outlier: Sequence[bool], tokens: int | None, epochs: float) -> list[int]:
    """Tokens for each group of rows.

    `sizes`: tokens in each group. With `tokens` every task gets the same, outliers as many as their number asks for,
    and together they get `tokens` for each task.
    """
    if tokens is None:
        return [max(1, round(epochs * size)) for size in sizes]
    tasks = [size for size, outlier in zip(sizes, is_outlier, strict=True) if not outlier]
    if not tasks:
        return [tokens for _ in sizes]
    mean = sum(tasks) / len(tasks)
    weights = [min(1.0, size / mean) if out else 1.0 for size, out in zip(sizes, is_outlier, strict=True)]
    return [max(1, round(tokens * len(tasks) * weight / sum(weights))) for weight in weights]


def make_plan(
    groups: Sequence[Sequence[int]], lengths: Sequence[int], budget: Sequence[int], batch_tokens: int, seed: int
) -> Plan:
    """Rows of every group, epoch after epoch until its budget is used, mixed evenly; rows of like length together.

    `groups`: row indices; `lengths[row]`: its tokens; `batch_tokens`: rows x longest row of a batch.
    """
    rng = random.Random(seed)
    mixed = []
    for number, (rows, most) in enumerate(zip(groups, budget, strict=True)):
        stream = _stream(rows, lengths, most, rng)
        mixed += [((place + 0.5) / len(stream), number, row) for place, row in enumerate(stream)]
    order = [row for _, _, row in sorted(mixed)]
    batches: list[tuple[int, ...]] = []
    for start in range(0, len(order), _WINDOW_ROWS):
        window = cut(sorted(order[start : start + _WINDOW_ROWS], key=lambda row: lengths[row]), lengths, batch_tokens)
        rng.shuffle(window)
        batches += window
    seen, total = [], 0
    for batch in batches:
        total += sum(lengths[row] for row in batch)
        seen.append(total)
    return Plan(tuple(batches), tuple(seen))


def _stream(rows: Sequence[int], lengths: Sequence[int], budget: int, rng: random.Random) -> list[int]:
    stream: list[int] = []
    used = 0
    while used < budget:
        epoch = list(rows)
        rng.shuffle(epoch)
        for row in epoch:
            stream.append(row)
            used += lengths[row]
            if used >= budget:
                break
    return stream


def cut(ordered: Sequence[int], lengths: Sequence[int], batch_tokens: int) -> list[tuple[int, ...]]:
    """Rows sorted by length, in batches of at most `batch_tokens` padded tokens (a longer row is alone)."""
    batches: list[tuple[int, ...]] = []
    batch: list[int] = []
    for row in ordered:
        if batch and lengths[row] * (len(batch) + 1) > batch_tokens:
            batches.append(tuple(batch))
            batch = []
        batch.append(row)
    return [*batches, tuple(batch)] if batch else batches
