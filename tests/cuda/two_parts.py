"""Tree attention in plain PyTorch: as it is defined, and in two parts as FlashInfer would do it with our arrays."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from sglang_hetero_spec.cuda.plan_arrays import CallArrays
from sglang_hetero_spec.cuda.tree_plan import CallPlan, TreePlan


@dataclass(frozen=True)
class Heads:
    query: int
    key: int
    dim: int

    @property
    def scale(self) -> float:
        return 1 / math.sqrt(self.dim)


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, seen: torch.Tensor, heads: Heads) -> tuple:
    """q: [Q, Hq, d]; k, v: [K, Hk, d]; seen: [Q, K] bool. Output [Q, Hq, d] and log-sum-exp [Q, Hq], base 2; a query
    that sees nothing has output 0 and -inf, as FlashInfer has it."""
    share = heads.query // heads.key
    k, v = k.repeat_interleave(share, dim=1), v.repeat_interleave(share, dim=1)
    logits = torch.einsum("qhd,khd->qhk", q, k) * heads.scale
    logits = logits.masked_fill(~seen.unsqueeze(1), -math.inf)
    lse = torch.logsumexp(logits, dim=-1) if k.shape[0] else torch.full(q.shape[:2], -math.inf, dtype=q.dtype)
    weights = torch.exp(logits - lse.unsqueeze(-1)).nan_to_num(0.0)
    return torch.einsum("qhk,khd->qhd", weights, v), lse / math.log(2)


def merge(one: tuple, other: tuple) -> torch.Tensor:
    """FlashInfer's merge of two attention states (flashinfer/cascade.py, merge_state)."""
    (v_a, s_a), (v_b, s_b) = one, other
    most = torch.maximum(s_a, s_b)
    w_a, w_b = torch.exp2(s_a - most).nan_to_num(0.0), torch.exp2(s_b - most).nan_to_num(0.0)
    total = (w_a + w_b).clamp(min=torch.finfo(v_a.dtype).tiny)
    return (v_a * (w_a / total).unsqueeze(-1)) + (v_b * (w_b / total).unsqueeze(-1))


def keys_of(call: CallPlan, indices: torch.Tensor, request: int) -> torch.Tensor:
    """Slots that FlashInfer reads for a request: whole pages but the last (page.cuh, get_length)."""
    pages = indices[call.kv_indptr[request] : call.kv_indptr[request + 1]].long()
    if pages.numel() == 0:
        return pages
    length = (pages.numel() - 1) * call.page_size + int(call.last_page_len[request])
    assert length == int(call.kv_lens[request]) and 1 <= int(call.last_page_len[request]) <= call.page_size
    slots = pages.unsqueeze(1) * call.page_size + torch.arange(call.page_size)
    return slots.flatten()[:length]


def unpacked(arrays: CallArrays, request: int, shape: tuple[int, int]) -> torch.Tensor:
    """The mask as FlashInfer reads it: bit `row * columns + column` of the request's bytes, lowest bit first."""
    number = torch.arange(shape[0] * shape[1])
    byte = arrays.packed[int(arrays.mask_indptr[request]) + number // 8].long()
    return ((byte >> (number % 8)) & 1).bool().view(shape)


def in_two_parts(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, plan: TreePlan, arrays: CallArrays, heads: Heads
) -> torch.Tensor:
    """q: [b * D, Hq, d]; k, v: [slots, Hk, d]. Reads nothing but the plan's arrays."""
    outputs = []
    for request in range(plan.prefix_start.shape[0]):
        rows = slice(int(plan.prefix.qo_indptr[request]), int(plan.prefix.qo_indptr[request + 1]))
        prefix = keys_of(plan.prefix, arrays.pages, request)
        tree = keys_of(plan.tree, arrays.slots, request)
        every = torch.ones(plan.width, prefix.numel(), dtype=torch.bool)
        some = unpacked(arrays, request, (plan.width, tree.numel()))
        one = attend(q[rows], k[prefix], v[prefix], every, heads)
        other = attend(q[rows], k[tree], v[tree], some, heads)
        outputs.append(merge(one, other))
    return torch.cat(outputs)
