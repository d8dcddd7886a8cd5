"""Where the CUDA side reaches into SGLang while server arguments are resolved."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from sglang_hetero_spec.hooks import Hook

logger = logging.getLogger(__name__)


def prefer_flashinfer(original: Callable[[Any], dict], view: Any) -> dict:
    """`flashinfer` where the user named no attention backend. view: SGLang's resolved view of the server arguments."""
    from sglang.srt.arg_groups.overrides import use_mla_backend
    from sglang.srt.utils import is_flashinfer_available

    from sglang_hetero_spec.algorithm import NAME

    named = (view.attention_backend, view.prefill_attention_backend, view.decode_attention_backend)
    ours = view.speculative_algorithm == NAME and str(view.device).startswith("cuda")
    if not ours or any(name is not None for name in named) or use_mla_backend(view) or not is_flashinfer_available():
        return original(view)
    logger.info("HETERO: no attention backend was named; flashinfer it is, whose verification takes any tree.")
    return {"attention_backend": "flashinfer"}


def leave_room(reserved_mb: float, server_args: Any) -> float:
    """After reserve_for_graph_mb, which SGLang calls only where the user left mem_fraction_static open."""
    from sglang.srt.arg_groups.overrides import resolving_view

    from sglang_hetero_spec.algorithm import NAME

    cfg = resolving_view(server_args)
    if cfg.speculative_algorithm != NAME or not str(cfg.device).startswith("cuda"):
        return reserved_mb
    from sglang_hetero_spec.cuda.pool_reserve import pool_reserve
    from sglang_hetero_spec.cuda.reserve import MIB

    rows = pool_reserve(cfg)
    for row in rows:
        logger.info("HETERO leaves %d MiB free for %s.", -(-row.num_bytes // MIB), row.what)
    return reserved_mb + sum(row.num_bytes for row in rows) / MIB


HOOKS = (
    Hook(
        target="sglang.srt.arg_groups.overrides._attention_backend_default",
        kind="around",
        function="sglang_hetero_spec.cuda.hooks.prefer_flashinfer",
        why="SGLang's default on Hopper (fa3) reads trees of its own shape; FlashInfer takes HETERO's, of any shape.",
        retire="SGLang lets an algorithm name the attention backend that it wants by default.",
    ),
    Hook(
        target="sglang.srt.arg_groups.memory_hook.reserve_for_graph_mb",
        kind="after",
        function="sglang_hetero_spec.cuda.hooks.leave_room",
        why="SGLang sizes KV caches with room for one draft model; a pool's drafters need more beside their caches.",
        retire="SGLang lets an algorithm say what its drafts need beside weights and KV.",
    ),
)
