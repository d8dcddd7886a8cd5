"""Tree verification in two attention calls: what each call reads, in whole numbers. Nothing here needs a GPU.

A node sees the committed prefix (with a sliding window: its end), its ancestors and itself. Keys that every node of a
tree sees need no mask: they are the prefix call, over pages. The rest is the tree call, with a mask: the tree's own
keys and, in front of them, the edge: keys that only some nodes see (with a window), or that do not begin a page.

Positions: a request has L committed tokens, at 0..L-1; its root is at L, a node of depth d at L + d.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class CallPlan:
    """One call of FlashInfer's paged prefill attention; int32 on the host, b requests.

    qo_indptr: [b + 1], rows of q; kv_indptr: [b + 1], places in the page indices; last_page_len: [b], 0 where a
    request has no page; kv_lens: [b], in tokens.
    """

    qo_indptr: torch.Tensor
    kv_indptr: torch.Tensor
    last_page_len: torch.Tensor
    kv_lens: torch.Tensor
    page_size: int

    @property
    def num_indices(self) -> int:
        return int(self.kv_indptr[-1])


@dataclass(frozen=True)
class TreePlan:
    """Both calls of one kind of layer. edge_start, prefix_start: [b] int32, the first key that some node sees, and the
    first that the prefix call reads (L where it reads nothing). mask_indptr: [b + 1] int32, in bytes."""

    prefix: CallPlan
    tree: CallPlan
    edge_start: torch.Tensor
    prefix_start: torch.Tensor
    mask_indptr: torch.Tensor
    width: int
    window_left: int


def plan_tree(seq_lens: torch.Tensor, width: int, depth: int, page_size: int, window_left: int = -1) -> TreePlan:
    """seq_lens: [b] on the host, committed tokens. width: nodes of every tree; depth: at least that of the deepest.

    window_left: a query sees keys at most this far behind it; -1 for all.
    """
    lens = seq_lens.to(torch.int32)
    edge_start, prefix_start = _split(lens, depth, page_size, window_left)
    prefix_lens = lens - prefix_start
    tree_lens = prefix_start - edge_start + width
    queries = _running_sum(torch.full_like(lens, width))
    return TreePlan(
        prefix=_call(queries, prefix_lens, page_size),
        tree=_call(queries, tree_lens, 1),
        edge_start=edge_start,
        prefix_start=prefix_start,
        # Segments begin at whole bytes.
        mask_indptr=_running_sum((tree_lens * width + 7) // 8),
        width=width,
        window_left=window_left,
    )


def mask_bytes(batch_size: int, width: int, depth: int, page_size: int, window_left: int = -1) -> int:
    """The most that the tree call's masks can take: the buffer of a captured graph."""
    edge = 0 if window_left < 0 else depth + page_size - 1
    return batch_size * ((width * (width + edge) + 7) // 8)


def tree_indices(batch_size: int, width: int, depth: int, page_size: int, window_left: int = -1) -> int:
    """The most keys that the tree call can read."""
    return batch_size * (width + (0 if window_left < 0 else depth + page_size - 1))


def _split(lens: torch.Tensor, depth: int, page_size: int, window_left: int) -> tuple[torch.Tensor, torch.Tensor]:
    if window_left < 0:
        return torch.zeros_like(lens), torch.zeros_like(lens)
    edge_start = (lens - window_left).clamp(min=0)
    seen_by_all = (lens + depth - window_left).clamp(min=0)
    whole_pages = (seen_by_all + page_size - 1) // page_size * page_size
    # Where no key is left for the prefix call, all that is seen belongs to the edge; a window shorter than a tree is
    # deep may see no committed key from its leaves, and none at all from its root.
    return torch.minimum(edge_start, lens), torch.minimum(whole_pages, lens)


def _call(queries: torch.Tensor, kv_lens: torch.Tensor, page_size: int) -> CallPlan:
    pages = (kv_lens + page_size - 1) // page_size
    return CallPlan(
        qo_indptr=queries,
        kv_indptr=_running_sum(pages),
        last_page_len=torch.where(pages > 0, kv_lens - (pages - 1) * page_size, 0).to(torch.int32),
        kv_lens=kv_lens,
        page_size=page_size,
    )


def _running_sum(counts: torch.Tensor) -> torch.Tensor:
    """[n + 1] int32 from 0."""
    total = torch.zeros(counts.shape[0] + 1, dtype=torch.int32)
    total[1:] = counts.cumsum(0)
    return total
