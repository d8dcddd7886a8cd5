"""The memory of drafters, counted exactly: every drafter has a KV slot for each of the target's."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from sglang.srt.runtime_context import get_parallel

from sglang_hetero_spec.errors import HeteroError

if TYPE_CHECKING:
    from sglang.srt.model_executor.model_runner import ModelRunner

    from sglang_hetero_spec.worker.draft_model import SGLangDraftModel

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class MemoryRow:
    name: str
    weight_bytes: int
    cell_bytes: int  # KV bytes per token, with what else is kept of each
    kv_bytes: int


def draft_cell_bytes(runner: ModelRunner) -> int:
    """KV bytes per token of one draft model: its own layers, heads, head size and dtype (MHA and GQA).

    The shape is that of SGLang's MHATokenToKVPool (mem_cache/memory_pool.py).
    """
    config = runner.model_config
    if runner.use_mla_backend or runner.is_hybrid_swa:
        raise HeteroError(
            f"The drafter at {config.model_path} keeps its KV cache in a form (MLA or a hybrid sliding window) that "
            "HETERO cannot budget yet; use a drafter with plain or grouped-query attention."
        )
    heads = config.get_num_kv_heads(get_parallel().attn_tp_size)
    layers = runner.layer_info.num_effective_layers
    element = torch.empty((), dtype=runner.kv_cache_dtype).element_size()
    return layers * heads * (config.head_dim + config.v_head_dim) * element


def check_target(runner: ModelRunner) -> None:
    """Raises HeteroError for targets whose KV pool is not one slot per token for all layers."""
    if runner.is_hybrid_swa:
        raise HeteroError(
            f"The target {runner.model_config.model_path} has a hybrid sliding-window KV pool, which HETERO cannot "
            "share with drafters yet; start with --disable-hybrid-swa-memory."
        )


def memory_rows(target: ModelRunner, models: Mapping[str, SGLangDraftModel]) -> list[MemoryRow]:
    """models: by their drafters' names."""
    rows = [_row("(target)", target)]
    for name, model in models.items():
        rows.append(_row(name, model.runner, model.hidden_cell_bytes))
        if model.adapters is not None:
            rows.append(MemoryRow(f"{name}'s adapters", model.adapters.adapters.num_bytes, 0, 0))
    return rows


def _row(name: str, runner: ModelRunner, hidden_cell_bytes: int = 0) -> MemoryRow:
    weight_bytes = sum(tensor.numel() * tensor.element_size() for tensor in runner.model.parameters())
    kv_bytes = sum(runner.token_to_kv_pool.get_kv_size_bytes())
    slots = runner.token_to_kv_pool.size + runner.page_size
    kv_bytes += slots * hidden_cell_bytes
    return MemoryRow(name, weight_bytes, kv_bytes // slots, kv_bytes)


def print_budget(target: ModelRunner, models: Mapping[str, SGLangDraftModel]) -> None:
    rows = memory_rows(target, models)
    lines = [f"{'':24}{'weights':>12}{'KV/token':>12}{'KV':>12}"]
    lines += [
        f"{row.name:24}{_size(row.weight_bytes):>12}{_size(row.cell_bytes):>12}{_size(row.kv_bytes):>12}"
        for row in rows
    ]
    total = MemoryRow(
        "total",
        sum(row.weight_bytes for row in rows),
        sum(row.cell_bytes for row in rows),
        sum(row.kv_bytes for row in rows),
    )
    lines.append(
        f"{total.name:24}{_size(total.weight_bytes):>12}{_size(total.cell_bytes):>12}{_size(total.kv_bytes):>12}"
    )
    tokens = target.max_total_num_tokens
    title = "HETERO memory, for %d tokens of the target (a drafter with its own vocabulary has more slots):\n%s"
    logger.info(title, tokens, "\n".join(lines))


def _size(num_bytes: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if num_bytes < 1024:
            return f"{num_bytes:.0f} {unit}" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1024
    return f"{num_bytes:.2f} GiB"
