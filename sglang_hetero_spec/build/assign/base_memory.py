"""Memory of drafters of which some are adapters of one: the base is there once, whoever needs it."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from sglang_hetero_spec.build.layout import GENERAL


def shared_base(
    memory: Mapping[str, int], limit: int | None, adapters: Collection[str], base: str = GENERAL
) -> tuple[dict[str, int], int | None]:
    """Bytes of each drafter and their limit, as `assign` adds them up: with adapters about, the base's are taken off
    the limit and cost nothing more; where the limit is below that, no adapter fits."""
    sizes = dict(memory)
    if limit is None or not adapters or base not in sizes:
        return sizes, limit
    if limit < sizes[base]:
        return {name: size + sizes[base] if name in adapters else size for name, size in sizes.items()}, limit
    return {**sizes, base: 0}, limit - sizes[base]
