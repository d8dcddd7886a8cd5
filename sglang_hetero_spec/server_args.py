"""Server arguments that HETERO cannot serve with yet, refused by name before anything loads."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sglang_hetero_spec.errors import HeteroError
from sglang_hetero_spec.pool import Pool


@dataclass(frozen=True)
class Unsupported:
    """flag: as the user typed it. applies: whether the resolved arguments ask for it."""

    flag: str
    applies: Callable[[Any], bool]
    instead: str


def _is_set(variable: str) -> bool:
    return os.environ.get(variable, "").lower() in ("1", "true", "yes", "on")


UNSUPPORTED = (
    Unsupported("--pp-size above 1", lambda cfg: cfg.pp_size > 1, "use --tp-size"),
    # SGLang turns the first into the second before it asks (arg_groups/parallel_hook.py).
    Unsupported(
        "--enable-dp-attention or --attn-dp-size above 1",
        lambda cfg: bool(cfg.enable_dp_attention) or (getattr(cfg, "attn_dp_size", None) or 1) > 1,
        "use --dp-size without it",
    ),
    Unsupported("--enable-two-batch-overlap", lambda cfg: cfg.enable_two_batch_overlap, "leave it out"),
    Unsupported("--enable-pdmux", lambda cfg: cfg.enable_pdmux, "leave it out"),
    Unsupported(
        "SGLANG_ENABLE_POST_CAPTURE_KV_SIZING",
        lambda cfg: _is_set("SGLANG_ENABLE_POST_CAPTURE_KV_SIZING"),
        "unset it: the target's KV pool would grow beyond the drafters'",
    ),
    Unsupported(
        "--disaggregation-mode",
        lambda cfg: cfg.disaggregation_mode not in (None, "null"),
        "serve prefill and decode in one engine",
    ),
    Unsupported(
        "--tokenizer-worker-num above 1",
        lambda cfg: cfg.tokenizer_worker_num > 1,
        "use 1: SGLang does not load plugins in further tokenizer workers (sglang issue 38464)",
    ),
    Unsupported(
        "--enable-lora or --lora-paths",
        lambda cfg: bool(cfg.enable_lora) or bool(cfg.lora_paths),
        "merge the adapter into the target's weights",
    ),
    Unsupported("--enable-mixed-chunk", lambda cfg: cfg.enable_mixed_chunk, "leave it out"),
    Unsupported(
        "--speculative-use-rejection-sampling",
        lambda cfg: cfg.speculative_use_rejection_sampling,
        "leave it out: HETERO does so by itself wherever drafts were drawn from a known distribution",
    ),
    Unsupported(
        "--enable-hierarchical-cache",
        lambda cfg: cfg.enable_hierarchical_cache,
        "leave it out: it would restore the KV of one draft model only",
    ),
    Unsupported(
        "--speculative-accept-threshold-single or -acc below 1",
        lambda cfg: cfg.speculative_accept_threshold_single < 1.0 or cfg.speculative_accept_threshold_acc < 1.0,
        "leave them at 1: below it the output is no longer the target's",
    ),
    Unsupported("--speculative-adaptive", lambda cfg: cfg.speculative_adaptive, "set num_steps in pool.json"),
    Unsupported("--enable-watermark", lambda cfg: cfg.enable_watermark, "leave it out"),
    Unsupported(
        "--speculative-num-steps, --speculative-eagle-topk or --speculative-num-draft-tokens",
        lambda cfg: any(
            value is not None
            for value in (cfg.speculative_num_steps, cfg.speculative_eagle_topk, cfg.speculative_num_draft_tokens)
        ),
        "set num_steps, topk and num_draft_tokens of each drafter in pool.json",
    ),
)


# They attend to trees of any number of nodes by the mask of each request, whatever the server's own topk and width.
_MASKED_BACKENDS = ("flashinfer", "triton")


def refuse_for_foreign(cfg: Any, pool: Pool) -> None:
    """HeteroError for what does not go with drafters of another vocabulary. cfg: as above, before or after SGLang has
    chosen an attention backend."""
    foreign = [spec for spec in pool.drafters if spec.vocab != "shared" and spec.path is not None]
    if foreign and cfg.tp_size > 1:
        raise HeteroError(
            f"HETERO does not support --tp-size above 1 with drafter {foreign[0].name} (`vocab` {foreign[0].vocab}),"
            " whose sequences each rank would keep for itself; use one rank, or drafters with the target's vocabulary."
        )


def refuse_for_backend(cfg: Any, pool: Pool) -> None:
    """HeteroError where drafters propose trees and an attention backend was named that reads them otherwise. cfg: as
    above, before or after SGLang has chosen one."""
    named = (cfg.attention_backend, cfg.prefill_attention_backend, cfg.decode_attention_backend)
    named += (cfg.speculative_draft_attention_backend,)
    backend = next((name for name in named if name is not None and name not in _MASKED_BACKENDS), None)
    if cfg.device == "cpu" or backend is None:
        return
    drafter = next((spec for spec in pool.drafters if spec.topk > 1 or spec.vocab in ("slem", "slrs")), None)
    if drafter is not None or pool.merged_draft_tokens is not None:
        who = "Two drafters of one request propose" if drafter is None else f"Drafter {drafter.name} proposes"
        raise HeteroError(
            f"{who} trees, which the attention backend {backend} does not read as HETERO builds them; start with"
            " --attention-backend flashinfer."
        )


def refuse_for_adapters(cfg: Any, pool: Pool) -> None:
    """HeteroError for what does not go with drafters of kind `lora`. cfg: as above."""
    adapter = next((spec for spec in pool.drafters if spec.kind == "lora"), None)
    if adapter is not None and cfg.tp_size > 1:
        raise HeteroError(
            f"HETERO does not support --tp-size above 1 with drafter {adapter.name} (kind `lora`), whose matrices are"
            " not split between ranks; use one rank, or merge the adapter into its base."
        )


def refuse_unsupported(cfg: Any) -> None:
    """cfg: SGLang's resolved view of the server arguments. Raises HeteroError for the first that does not go."""
    for entry in UNSUPPORTED:
        if entry.applies(cfg):
            raise HeteroError(f"HETERO does not support {entry.flag} yet; {entry.instead}.")
