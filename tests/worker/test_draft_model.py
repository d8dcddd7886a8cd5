"""Parts of the draft model that need no engine: cutting catch-up reads, and counting KV bytes."""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest
import torch

pytestmark = pytest.mark.usefixtures("sglang")


@pytest.mark.parametrize("seed", range(40))
def test_catch_up_reads_everything_once_and_in_order(seed: int) -> None:
    from sglang_hetero_spec.worker.draft_model import chunks

    rng = random.Random(seed)
    max_tokens = rng.choice([1, 4, 10, 1000])
    starts = [rng.randrange(30) for _ in range(rng.randint(0, 6))]
    ends = [start + rng.choice([0, 0, 1, 7, 25]) for start in starts]
    reached = list(starts)
    for members, lows, highs in chunks(starts, ends, max_tokens):
        assert len(set(members)) == len(members) > 0
        assert 0 < sum(highs) - sum(lows) <= max_tokens
        for member, low, high in zip(members, lows, highs, strict=True):
            assert low == reached[member] < high
            reached[member] = high
    assert reached == [max(start, end) for start, end in zip(starts, ends, strict=True)]


def test_a_drafter_that_has_read_further_than_needed_reads_nothing() -> None:
    from sglang_hetero_spec.worker.draft_model import chunks

    assert list(chunks([5, 9], [5, 7], 10)) == []


def runner(**changes: object) -> SimpleNamespace:
    fields = {
        "use_mla_backend": False,
        "is_hybrid_swa": False,
        "kv_cache_dtype": torch.bfloat16,
        "layer_info": SimpleNamespace(num_effective_layers=3),
        "model_config": SimpleNamespace(
            get_num_kv_heads=lambda tp: max(1, 4 // tp), head_dim=16, v_head_dim=24, model_path="/a/model"
        ),
    }
    return SimpleNamespace(**{**fields, **changes})


@pytest.mark.parametrize("tp_size", [1, 2, 8])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float8_e5m2])
def test_a_cell_is_as_big_as_sglang_makes_it(monkeypatch: pytest.MonkeyPatch, tp_size: int, dtype: torch.dtype) -> None:
    from sglang.srt.mem_cache.memory_pool import MHATokenToKVPool

    from sglang_hetero_spec.worker import budget

    monkeypatch.setattr(budget, "get_parallel", lambda: SimpleNamespace(attn_tp_size=tp_size))
    model = runner(kv_cache_dtype=dtype)
    pool = MHATokenToKVPool(
        size=20,
        page_size=1,
        dtype=dtype,
        head_num=model.model_config.get_num_kv_heads(tp_size),
        head_dim=16,
        v_head_dim=24,
        layer_num=3,
        device="cpu",
        enable_memory_saver=False,
    )
    assert budget.draft_cell_bytes(model) * 21 == sum(pool.get_kv_size_bytes())


@pytest.mark.parametrize("flag", ["use_mla_backend", "is_hybrid_swa"])
def test_kv_caches_of_another_form_are_refused(monkeypatch: pytest.MonkeyPatch, flag: str) -> None:
    from sglang_hetero_spec.errors import HeteroError
    from sglang_hetero_spec.worker import budget

    monkeypatch.setattr(budget, "get_parallel", lambda: SimpleNamespace(attn_tp_size=1))
    with pytest.raises(HeteroError, match="/a/model"):
        budget.draft_cell_bytes(runner(**{flag: True}))


def test_a_target_with_two_kv_pools_is_refused() -> None:
    from sglang_hetero_spec.errors import HeteroError
    from sglang_hetero_spec.worker.budget import check_target

    check_target(runner())
    with pytest.raises(HeteroError, match="--disable-hybrid-swa-memory"):
        check_target(runner(is_hybrid_swa=True))
