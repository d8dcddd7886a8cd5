"""Our two calls as FlashInfer's own signatures take them, and what they hand over. The kernels need a GPU."""

from __future__ import annotations

import inspect
from typing import Any, ClassVar

import pytest
import torch

from sglang_hetero_spec.cuda.plan_arrays import CallArrays
from sglang_hetero_spec.cuda.tree_attention import AttentionShape, FlashInferTreeAttention, GraphBuffers
from sglang_hetero_spec.cuda.tree_plan import plan_tree

flashinfer = pytest.importorskip("flashinfer", reason="FlashInfer is not installed: it comes with SGLang on Linux")
SHAPE = AttentionShape(8, 2, 16, torch.bfloat16, torch.bfloat16, 16)
REAL = flashinfer.BatchPrefillWithPagedKVCacheWrapper


def bound(function: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """TypeError where the real one would raise it."""
    return inspect.signature(inspect.unwrap(function)).bind(*args, **kwargs).arguments


class Wrapper:
    made: ClassVar[list[Wrapper]] = []

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.init = bound(REAL.__init__, self, *args, **kwargs)
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self._mask_indptr_buf = torch.full((3,), -7, dtype=torch.int32)
        self.made.append(self)

    def plan(self, *args: Any, **kwargs: Any) -> None:
        self.calls.append(("plan", bound(REAL.plan, self, *args, **kwargs)))

    def forward(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        self.calls.append(("forward", bound(REAL.forward, self, *args, **kwargs)))
        return args[0]

    def forward_return_lse(self, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        self.calls.append(("forward_return_lse", bound(REAL.forward_return_lse, self, *args, **kwargs)))
        return args[0], torch.zeros(args[0].shape[:2])


@pytest.fixture(autouse=True)
def _wrappers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flashinfer, "BatchPrefillWithPagedKVCacheWrapper", Wrapper)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
    monkeypatch.setattr(Wrapper, "made", [])


def planned(lens: list[int], window_left: int = -1, buffers: GraphBuffers | None = None) -> FlashInferTreeAttention:
    attention = FlashInferTreeAttention(torch.zeros(16, dtype=torch.uint8), SHAPE, buffers)
    plan = plan_tree(torch.tensor(lens), 4, 3, 16, window_left)
    arrays = CallArrays(
        pages=torch.arange(plan.prefix.num_indices, dtype=torch.int32),
        slots=torch.arange(plan.tree.num_indices, dtype=torch.int32),
        packed=torch.zeros(int(plan.mask_indptr[-1]), dtype=torch.uint8),
        mask_indptr=plan.mask_indptr,
    )
    attention.plan(plan, arrays)
    return attention


def test_the_prefix_has_pages_and_no_mask_the_tree_a_mask_and_no_pages() -> None:
    planned([40, 17])
    prefix, tree = (wrapper.calls[0][1] for wrapper in Wrapper.made)
    assert prefix["page_size"] == 16 and tree["page_size"] == 1
    assert "packed_custom_mask" not in prefix and tree["packed_custom_mask"].numel() == 4
    assert prefix["causal"] is tree["causal"] is False
    assert prefix["seq_lens"].tolist() == [40, 17] and tree["seq_lens"].tolist() == [4, 4]
    assert prefix["paged_kv_last_page_len"].tolist() == [8, 1]
    for call in (prefix, tree):
        assert (call["num_qo_heads"], call["num_kv_heads"], call["head_dim_qk"]) == (8, 2, 16)
        hosts = ("qo_indptr", "paged_kv_indptr", "paged_kv_last_page_len", "seq_lens")
        assert {call[name].device.type for name in hosts} == {"cpu"}, "FlashInfer would read them back"


def test_mask_segments_are_counted_in_bytes_whatever_flashinfer_counts_them_in() -> None:
    planned([40, 17])
    assert Wrapper.made[1]._mask_indptr_buf.tolist() == [0, 2, 4]


def test_both_calls_run_and_the_pool_is_seen_in_pages(monkeypatch: pytest.MonkeyPatch, sglang: None) -> None:
    from sglang.srt.layers.attention import flashinfer_backend

    merged: list[tuple] = []
    monkeypatch.setattr(
        flashinfer_backend, "_safe_merge_state", lambda *parts: merged.append(parts) or parts[:2], raising=False
    )
    attention = planned([40, 17])
    pool = torch.zeros(64, 2, 16)
    attention.run(torch.zeros(8, 8, 16), (pool, pool), 0.25, None, None)
    (_, (_, before)), (_, (_, tree)) = ((wrapper, wrapper.calls[1]) for wrapper in Wrapper.made)
    assert before["paged_kv_cache"][0].shape == (4, 16, 2, 16) and tree["paged_kv_cache"][0].shape == (64, 2, 16)
    assert before["sm_scale"] == tree["sm_scale"] == 0.25
    assert len(merged) == 1


def test_where_nothing_is_seen_by_all_the_tree_call_is_the_whole() -> None:
    attention = planned([5, 3], window_left=2)
    prefix, tree = Wrapper.made
    pool = torch.zeros(64, 2, 16)
    attention.run(torch.zeros(8, 8, 16), (pool, pool), 0.25, None, None)
    assert prefix.calls == [] and [name for name, _ in tree.calls] == ["plan", "forward"]


def test_a_graph_has_buffers_of_its_own_for_one_batch_size() -> None:
    buffers = GraphBuffers.allocate(4, 4, 100, 16, -1, "cpu")
    planned([5, 3], buffers=buffers.of(2))
    prefix, tree = (wrapper.init for wrapper in Wrapper.made)
    assert prefix["use_cuda_graph"] and tree["use_cuda_graph"]
    for made in (prefix, tree):
        assert len(made["qo_indptr_buf"]) == len(made["paged_kv_indptr_buf"]) == 3
        assert len(made["paged_kv_last_page_len_buf"]) == 2
    assert "custom_mask_buf" not in prefix, "such a buffer alone makes FlashInfer read a mask"
    assert tree["custom_mask_buf"].numel() >= 4 * 2 and len(tree["mask_indptr_buf"]) == 3
    starts = [made["paged_kv_indptr_buf"].data_ptr() for made in (prefix, tree)]
    assert len(set(starts)) == 2
