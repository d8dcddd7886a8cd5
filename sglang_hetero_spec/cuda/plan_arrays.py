"""What FlashInfer reads on the device, filled from a TreePlan."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sglang_hetero_spec.cuda.transfer import from_host
from sglang_hetero_spec.cuda.tree_plan import TreePlan

_PAGES_AT_ONCE = 256
_BYTES_AT_ONCE = 64


@dataclass(frozen=True)
class Trees:
    """The trees of a step on the device; b requests, D nodes each. `table` is SGLang's req_to_token.

    table: int32 [rows, tokens]; rows: int64 [b]; seq_lens: int64 [b]; positions: int64 [b * D];
    mask: bool, at least [b * D * D], row sees column.
    """

    table: torch.Tensor
    rows: torch.Tensor
    seq_lens: torch.Tensor
    positions: torch.Tensor
    mask: torch.Tensor


@dataclass(frozen=True)
class CallArrays:
    """pages, slots: int32, the pages of the prefix call and the slots of the tree call; packed: uint8, its mask."""

    pages: torch.Tensor
    slots: torch.Tensor
    packed: torch.Tensor
    mask_indptr: torch.Tensor


def fill(plan: TreePlan, trees: Trees) -> CallArrays:
    """One host-to-device copy and two kernels; nothing waits for the device."""
    from sglang_hetero_spec.cuda.plan_kernel import page_kernel, tree_call_kernel

    device = trees.table.device
    batch_size = plan.prefix_start.shape[0]
    host = (plan.edge_start, plan.prefix_start, plan.prefix.kv_indptr, plan.tree.kv_indptr, plan.mask_indptr)
    sent = from_host(torch.cat(host), device, torch.int32).split([part.shape[0] for part in host])
    edge_start, prefix_start, prefix_indptr, tree_indptr, mask_indptr = sent
    arrays = CallArrays(
        pages=torch.empty(plan.prefix.num_indices, dtype=torch.int32, device=device),
        slots=torch.empty(plan.tree.num_indices, dtype=torch.int32, device=device),
        packed=torch.empty(int(plan.mask_indptr[-1]), dtype=torch.uint8, device=device),
        mask_indptr=mask_indptr,
    )
    rows, stride = trees.rows.to(torch.int64), trees.table.stride(0)
    most_pages = int((plan.prefix.kv_indptr[1:] - plan.prefix.kv_indptr[:-1]).max())
    if most_pages:
        page_kernel[(batch_size, -(-most_pages // _PAGES_AT_ONCE))](
            trees.table,
            rows,
            prefix_start,
            prefix_indptr,
            arrays.pages,
            stride,
            PAGE=plan.prefix.page_size,
            BLOCK=_PAGES_AT_ONCE,
        )
    # A row of the mask has a byte for at least every eighth key: with fewer nodes the keys are more.
    most_keys = int(plan.tree.kv_lens.max())
    most_units = max(most_keys, -(-plan.width * most_keys // 8))
    tree_call_kernel[(batch_size, -(-most_units // _BYTES_AT_ONCE))](
        trees.table,
        rows,
        trees.seq_lens.to(torch.int64),
        edge_start,
        prefix_start,
        tree_indptr,
        mask_indptr,
        trees.positions,
        trees.mask.view(torch.uint8),
        arrays.slots,
        arrays.packed,
        stride,
        plan.width,
        plan.window_left,
        BLOCK=_BYTES_AT_ONCE,
    )
    return arrays
