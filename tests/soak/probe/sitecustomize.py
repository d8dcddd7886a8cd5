"""Python imports this in every process that has this folder on its path. A soaked server's processes then write
what they hold into $HETERO_PROBE/<pid>.json whenever they get SIGUSR2; without the variable nothing happens."""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

_FOLDER = os.environ.get("HETERO_PROBE")


def _dump(_signal: int, frame: FrameType | None) -> None:
    gc.collect()
    kinds = ("RequestState", "Req", "ReqState", "ScheduleBatch")
    found = dict.fromkeys(kinds, 0)
    for thing in gc.get_objects():
        name = type(thing).__name__
        if name in found:
            found[name] += 1
    report: dict[str, Any] = {"process": " ".join(sys.argv)[:80], "objects": found}
    scheduler = _find_scheduler(frame)
    if scheduler is not None:
        report["scheduler"] = _slots(scheduler)
        report["ngram"] = _corpora(scheduler)
    server = sys.modules.get("sglang.srt.entrypoints.http_server")
    if server is not None and getattr(server, "_global_state", None) is not None:
        report["rid_to_state"] = len(server._global_state.tokenizer_manager.rid_to_state)
    partial = Path(str(_FOLDER), f"{os.getpid()}.partial")
    partial.write_text(json.dumps(report))
    partial.rename(partial.with_suffix(".json"))


def _find_scheduler(frame: FrameType | None) -> Any:
    """The scheduler is `self` of its own loop. (SGLang freezes what start-up made, so gc does not list it.)"""
    while frame is not None:
        found = frame.f_locals.get("self")
        if hasattr(found, "token_to_kv_pool_allocator") and hasattr(found, "req_to_token_pool"):
            return found
        frame = frame.f_back
    return None


def _slots(scheduler: Any) -> dict[str, int]:
    """Slots in use are those that are neither free nor kept by the prefix cache."""
    kv, rows, cache = scheduler.token_to_kv_pool_allocator, scheduler.req_to_token_pool, scheduler.tree_cache
    return {
        "kv_in_use": kv.size - kv.available_size() - cache.evictable_size(),
        "kv_cached": cache.evictable_size(),
        "kv_protected": cache.protected_size(),
        "rows_in_use": rows.size - rows.available_size(),
        "waiting": len(scheduler.waiting_queue),
        "running": len(scheduler.running_batch.reqs),
    }


def _corpora(scheduler: Any) -> dict[str, dict[str, int]]:
    """Of each n-gram drafter of a HETERO server."""
    drafters = getattr(getattr(scheduler, "draft_worker", None), "drafters", ())
    return {
        drafter.spec.name: {
            "num_bytes": drafter.drafting.corpus.num_bytes,
            "num_tokens": drafter.drafting.corpus.num_tokens,
            "num_inserted": drafter.drafting.corpus.num_inserted,
            "texts": len(drafter.drafting._texts),
        }
        for drafter in drafters
        if hasattr(drafter, "drafting")
    }


if _FOLDER:
    signal.signal(signal.SIGUSR2, _dump)
