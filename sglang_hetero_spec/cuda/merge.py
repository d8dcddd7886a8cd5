"""Several drafters' trees merged and laid out by one kernel: what worker.merge and drafters.tree do in PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from sglang_hetero_spec.cuda.transfer import from_host

if TYPE_CHECKING:
    from sglang_hetero_spec.worker.merge import Proposal

# Columns of a row of the table; three more keep rows aligned.
_TOKENS, _TOKEN_STRIDE, _PARENTS, _PARENT_STRIDE, _NODES = range(5)
_COLUMNS = 8
_INT64_BYTES = 8


@dataclass(frozen=True)
class DeviceTrees:
    """Merged trees with their layout. b requests, D nodes each; all int64 but the mask.

    tokens, parents: [b, D] (see MergedTree). positions: [b, D], committed tokens included;
    next_child, next_sibling: [b, D] (see TreeLayout). mask: bool, flat, as SGLang wants it.
    """

    tokens: torch.Tensor
    parents: torch.Tensor
    positions: torch.Tensor
    next_child: torch.Tensor
    next_sibling: torch.Tensor
    mask: torch.Tensor


def merge_on_device(
    roots: torch.Tensor,
    seq_lens: torch.Tensor,
    proposals: Sequence[Proposal],
    width: int,
    mask: torch.Tensor,
    full_mask: bool,
) -> DeviceTrees:
    """One host-to-device copy and one kernel, whatever the number of drafters; nothing waits for the device.

    roots, seq_lens: [b]. width must hold every proposal. mask: bool, at least [b * D * D] or, for full_mask, D rows of
    (seq_len + D) entries for each request, all True; it is written and returned.
    """
    from sglang_hetero_spec.cuda.merge_kernel import merge_kernel

    batch_size, device = roots.shape[0], roots.device
    # One allocation for what has one shape.
    wide = torch.empty((5, batch_size, width), dtype=torch.int64, device=device)
    trees = DeviceTrees(
        tokens=wide[0],
        parents=wide[1],
        positions=wide[2],
        next_child=wide[3],
        next_sibling=wide[4],
        mask=mask,
    )
    merge_kernel[(batch_size,)](
        from_host(source_table(proposals, batch_size, width), device),
        roots.to(torch.int64),
        seq_lens.to(torch.int64),
        trees.tokens,
        trees.parents,
        trees.positions,
        trees.next_child,
        trees.next_sibling,
        mask.view(torch.uint8),
        width,
        COLUMNS=_COLUMNS,
        FULL_MASK=full_mask,
        BATCH_BLOCK=_power_of_two(batch_size),
        BLOCK=_power_of_two(width),
    )
    return trees


def source_table(proposals: Sequence[Proposal], batch_size: int, width: int) -> np.ndarray:
    """int64 [b, 8]: where each request's tree lies. Rows of requests without a proposal are zero.

    The addresses hold as long as the proposals do.
    """
    table = np.zeros((batch_size, _COLUMNS), dtype=np.int64)
    for proposal in proposals:
        tree, places = proposal.tree, np.asarray(proposal.places)
        tokens, parents = tree.tokens, tree.parents
        if tokens.dtype != torch.int64 or parents.dtype != torch.int64:
            raise TypeError(f"A tree's tokens and parents must be int64, not {tokens.dtype} and {parents.dtype}.")
        if tree.width > width:
            raise ValueError(f"A tree of {tree.width} nodes does not fit into {width}.")
        rows = np.arange(places.size)
        table[places, _TOKENS] = tokens.data_ptr() + rows * (tokens.stride(0) * _INT64_BYTES)
        table[places, _TOKEN_STRIDE] = tokens.stride(1)
        table[places, _PARENTS] = parents.data_ptr() + rows * (parents.stride(0) * _INT64_BYTES)
        table[places, _PARENT_STRIDE] = parents.stride(1)
        table[places, _NODES] = tree.width
    return table


def _power_of_two(number: int) -> int:
    return 1 << (number - 1).bit_length()
