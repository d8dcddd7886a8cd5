"""Tree attention in two calls of FlashInfer, and nothing but the calls: what they read is made in tree_plan and
plan_arrays."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch

from sglang_hetero_spec.cuda.plan_arrays import CallArrays
from sglang_hetero_spec.cuda.tree_plan import CallPlan, TreePlan, mask_bytes, tree_indices


@dataclass(frozen=True)
class AttentionShape:
    """Of one rank's share of a layer."""

    num_qo_heads: int
    num_kv_heads: int
    head_dim: int
    q_dtype: torch.dtype
    kv_dtype: torch.dtype
    page_size: int


class TreeAttention(Protocol):
    """Of all layers of one kind. Planned once per forward, run once per layer."""

    def plan(self, plan: TreePlan, arrays: CallArrays) -> None: ...

    def run(
        self,
        q: torch.Tensor,
        kv: tuple[torch.Tensor, torch.Tensor],
        sm_scale: float,
        k_scale: float | None,
        v_scale: float | None,
    ) -> torch.Tensor:
        """q: [b * D, Hq, d]; kv: keys and values of the pool, [slots, Hk, d] each. Returns [b * D, Hq, d]."""


@dataclass(frozen=True)
class GraphBuffers:
    """What captured kernels read, at addresses that stay: for the largest batch, smaller ones take its beginning.

    All int32 but `packed` (uint8). qo_indptr, prefix_indptr, tree_indptr, mask_indptr: [b + 1]; prefix_last, tree_last:
    [b]; pages, slots: the most that a batch can read.
    """

    qo_indptr: torch.Tensor
    prefix_indptr: torch.Tensor
    tree_indptr: torch.Tensor
    mask_indptr: torch.Tensor
    prefix_last: torch.Tensor
    tree_last: torch.Tensor
    pages: torch.Tensor
    slots: torch.Tensor
    packed: torch.Tensor

    @classmethod
    def allocate(
        cls,
        batch_size: int,
        width: int,
        max_context: int,
        page_size: int,
        window_left: int,
        device: torch.device | str,
    ) -> GraphBuffers:
        size = (batch_size, width, width - 1, page_size, window_left)
        seen = max_context if window_left < 0 else min(max_context, window_left + page_size)

        def integers(number: int) -> torch.Tensor:
            return torch.zeros(number, dtype=torch.int32, device=device)

        return cls(
            qo_indptr=integers(batch_size + 1),
            prefix_indptr=integers(batch_size + 1),
            tree_indptr=integers(batch_size + 1),
            mask_indptr=integers(batch_size + 1),
            prefix_last=integers(batch_size),
            tree_last=integers(batch_size),
            pages=integers(batch_size * (-(-seen // page_size) + 1)),
            slots=integers(tree_indices(*size)),
            packed=torch.zeros(mask_bytes(*size), dtype=torch.uint8, device=device),
        )

    def of(self, batch_size: int) -> GraphBuffers:
        ends = {name: batch_size + 1 for name in ("qo_indptr", "prefix_indptr", "tree_indptr", "mask_indptr")}
        ends |= {name: batch_size for name in ("prefix_last", "tree_last")}
        return replace(self, **{name: getattr(self, name)[:end] for name, end in ends.items()})


class FlashInferTreeAttention:
    """TreeAttention by FlashInfer's paged prefill kernels (fa2, the ones that take a mask on every GPU)."""

    def __init__(self, workspace: torch.Tensor, shape: AttentionShape, buffers: GraphBuffers | None = None) -> None:
        """workspace: uint8, shared with whatever else runs on this stream. buffers: of a graph's batch size."""
        from flashinfer import BatchPrefillWithPagedKVCacheWrapper

        self._shape = shape
        self._reads_prefix = True
        fixed: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
        if buffers is not None:
            fixed = _graph_arguments(buffers)
        wrappers: list[Any] = [
            BatchPrefillWithPagedKVCacheWrapper(workspace, "NHD", backend="fa2", **arguments) for arguments in fixed
        ]
        self._prefix, self._tree = wrappers
        self._in_graph = buffers is not None

    def plan(self, plan: TreePlan, arrays: CallArrays) -> None:
        """Host arithmetic and queued copies. FlashInfer reads nothing back: all that it asks for is on the host."""
        self._reads_prefix = self._in_graph or plan.prefix.num_indices > 0
        if self._reads_prefix:
            self._plan_call(self._prefix, plan.prefix, arrays.pages)
        self._plan_call(self._tree, plan.tree, arrays.slots, packed_custom_mask=arrays.packed)
        # For a mask that comes packed FlashInfer 0.7.2 counts its segments in cells; its kernel counts in bytes
        # (variants.cuh). SGLang's fast_prefill_plan writes this buffer too.
        self._tree._mask_indptr_buf.copy_(arrays.mask_indptr, non_blocking=True)

    def _plan_call(self, wrapper: Any, call: CallPlan, indices: torch.Tensor, **mask: torch.Tensor) -> None:
        shape = self._shape
        # From pageable memory a copy to the device may wait for all that is queued.
        qo_indptr, kv_indptr, last_page_len, kv_lens = (
            array.pin_memory() for array in (call.qo_indptr, call.kv_indptr, call.last_page_len, call.kv_lens)
        )
        wrapper.plan(
            qo_indptr,
            kv_indptr,
            indices,
            last_page_len,
            shape.num_qo_heads,
            shape.num_kv_heads,
            shape.head_dim,
            call.page_size,
            causal=False,
            q_data_type=shape.q_dtype,
            kv_data_type=shape.kv_dtype,
            seq_lens=kv_lens,
            non_blocking=True,
            **mask,
        )

    def run(
        self,
        q: torch.Tensor,
        kv: tuple[torch.Tensor, torch.Tensor],
        sm_scale: float,
        k_scale: float | None,
        v_scale: float | None,
    ) -> torch.Tensor:
        scales: dict[str, Any] = {"causal": False, "sm_scale": sm_scale, "k_scale": k_scale, "v_scale": v_scale}
        if not self._reads_prefix:
            return self._tree.forward(q, kv, **scales)
        from sglang.srt.layers.attention.flashinfer_backend import _safe_merge_state

        output, lse = self._tree.forward_return_lse(q, kv, **scales)
        pages = (self._in_pages(kv[0]), self._in_pages(kv[1]))
        before, before_lse = self._prefix.forward_return_lse(q, pages, **scales)
        # Falls back to a Triton kernel for more heads than FlashInfer's takes.
        return _safe_merge_state(before, before_lse, output, lse)[0]

    def _in_pages(self, pool: torch.Tensor) -> torch.Tensor:
        return pool.view(-1, self._shape.page_size, *pool.shape[1:])


def _graph_arguments(buffers: GraphBuffers) -> tuple[dict[str, Any], dict[str, Any]]:
    prefix = {
        "use_cuda_graph": True,
        "qo_indptr_buf": buffers.qo_indptr,
        "paged_kv_indptr_buf": buffers.prefix_indptr,
        "paged_kv_indices_buf": buffers.pages,
        "paged_kv_last_page_len_buf": buffers.prefix_last,
    }
    tree = {
        "use_cuda_graph": True,
        "qo_indptr_buf": buffers.qo_indptr,
        "paged_kv_indptr_buf": buffers.tree_indptr,
        "paged_kv_indices_buf": buffers.slots,
        "paged_kv_last_page_len_buf": buffers.tree_last,
        "custom_mask_buf": buffers.packed,
        "mask_indptr_buf": buffers.mask_indptr,
    }
    return prefix, tree
