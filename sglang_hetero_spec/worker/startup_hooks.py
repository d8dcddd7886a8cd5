"""Hooks that act while a server starts. Each leaves every other speculative algorithm alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sglang.srt.mem_cache.allocation_sizing import get_alloc_page_size, get_alloc_reserve_per_decode
from sglang.srt.runtime_context import get_spec

from sglang_hetero_spec.algorithm import NAME, HeteroAlgorithm

if TYPE_CHECKING:
    from sglang.srt.mem_cache.kv_cache_configurator import KVCacheConfigurator
    from sglang.srt.model_executor.pool_configurator import DefaultPoolConfigurator


def keep_algorithm_name(
    original: Callable[..., str | None], speculative_algorithm: str | None, *args: Any, **kwargs: Any
) -> str | None:
    if speculative_algorithm == NAME:
        return NAME
    return original(speculative_algorithm, *args, **kwargs)


class _WithoutDraftPath:
    """SGLang's view of the server arguments as it is without a draft model."""

    speculative_draft_model_path = None

    def __init__(self, view: Any) -> None:
        self._view = view

    def __getattr__(self, name: str) -> Any:
        return getattr(self._view, name)


def hide_draft_path(original: Callable[[Any], dict], view: Any) -> dict:
    return original(_WithoutDraftPath(view) if view.speculative_algorithm == NAME else view)


def skip_single_draft_config(original: Callable[..., None], **kwargs: Any) -> None:
    if not isinstance(kwargs["spec_algorithm"], HeteroAlgorithm):
        original(**kwargs)


def count_draft_kv(_result: None, configurator: DefaultPoolConfigurator, kvc: KVCacheConfigurator) -> None:
    if isinstance(kvc.spec_algorithm, HeteroAlgorithm) and not kvc.is_draft_worker:
        configurator._cell_size += kvc.spec_algorithm.draft_cell_bytes


def hold_decode_reserve(extra_context_len: int) -> int:
    """After get_req_to_token_extra_context_len: room behind the context for all slots that a step may allocate."""
    if get_spec().speculative_algorithm != NAME:
        return extra_context_len
    return max(extra_context_len, get_alloc_reserve_per_decode() + get_alloc_page_size() - 1)
