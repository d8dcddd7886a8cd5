"""Draft trees: building them from beam selections, reading them from masks, greedy verification.

Shapes: b requests, D nodes per tree (node 0 is the last committed token). Links are node numbers within the tree,
-1 for none: first child in `retrieve_next_token`, next child of the same parent in `retrieve_next_sibling`.
In NumPy: the arrays are so small that PyTorch's calls cost three times as much as the work.
"""

from __future__ import annotations

import numpy as np
import torch

_FULL_MASK = 0
_QLEN_ONLY = 1


def build_tree_kernel_efficient(
    parent_list: torch.Tensor,
    selected_index: torch.Tensor,
    verified_seq_len: torch.Tensor,
    tree_mask: torch.Tensor,
    positions: torch.Tensor,
    retrieve_index: torch.Tensor,
    retrieve_next_token: torch.Tensor,
    retrieve_next_sibling: torch.Tensor,
    topk: int,
    depth: int,
    draft_token_num: int,
    tree_mask_mode: int,
) -> None:
    """Write tree mask, positions and links of the trees that a beam search selected.

    parent_list: int [b, topk * (depth - 1) + 1]; selected_index: int [b, D - 1], ascending beam cell numbers.
    verified_seq_len: int [b], committed tokens. Outputs, all written in place: tree_mask bool, flat, [b * D * D]
    (mode 1) or with every prefix in front of each row (mode 0); positions int [b * D]; the links int [b, D].
    """
    parents = _parents(parent_list.numpy(), selected_index.numpy(), topk)
    ancestors, depths = _ancestors(parents, depth)
    positions.numpy()[:] = (verified_seq_len.numpy()[:, None] + depths).reshape(-1)
    _write_links(parents, retrieve_index, retrieve_next_token, retrieve_next_sibling)
    if tree_mask_mode == _QLEN_ONLY:
        tree_mask.numpy()[: ancestors.size] = ancestors.reshape(-1)
    elif tree_mask_mode == _FULL_MASK:
        _write_full_mask(tree_mask.numpy(), ancestors, verified_seq_len.tolist(), draft_token_num)
    else:
        raise NotImplementedError("The bit-packed tree mask has no CPU reader.")


def _parents(parent_list: np.ndarray, selected_index: np.ndarray, topk: int) -> np.ndarray:
    """Parent node of every node, int64 [b, D]: -1 for the root and for nodes whose parent was not selected."""
    batch, drafts = selected_index.shape
    parents = np.zeros((batch, drafts + 1), dtype=np.int64)
    parents[:, 0] = -1
    if parent_list.shape[1] == 0 or drafts == 0:
        return parents
    cell = selected_index // topk
    parent_cell = parent_list[np.arange(batch)[:, None], np.minimum(cell, parent_list.shape[1] - 1)]
    position = _first(selected_index[:, None, :] == parent_cell[:, :, None])
    parents[:, 1:] = np.where(cell == 0, 0, np.where(position < 0, -1, position + 1))
    return parents


def _ancestors(parents: np.ndarray, depth: int) -> tuple[np.ndarray, np.ndarray]:
    """Who sees whom: bool [b, D, D] (row sees column: itself, its ancestors, the root) and int64 depths [b, D]."""
    batch, width = parents.shape
    trees, nodes = np.arange(batch)[:, None], np.arange(width)
    seen = np.zeros((batch, width, width), dtype=bool)
    seen[:, nodes, nodes] = True
    seen[:, :, 0] = True
    depths = np.zeros_like(parents)
    current = parents
    for _ in range(depth):
        alive = current >= 0
        if not alive.any():
            break
        depths += alive
        # A finished chain stays at the root, which every row sees anyway.
        index = np.maximum(current, 0)
        seen[trees, nodes, index] = True
        current = np.where(alive, parents[trees, index], current)
    # An orphan's chain ends without reaching the root: it still counts as one step away from it.
    np.maximum(depths[:, 1:], 1, out=depths[:, 1:])
    return seen, depths


def _write_links(
    parents: np.ndarray,
    retrieve_index: torch.Tensor,
    retrieve_next_token: torch.Tensor,
    retrieve_next_sibling: torch.Tensor,
) -> None:
    """First child and next sibling of every node, children in ascending order; and the running node number."""
    batch, width = parents.shape
    nodes = np.arange(width)
    retrieve_next_token.numpy()[:] = _first(parents[:, None, :] == nodes[:, None])
    same_parent = (parents[:, None, :] == parents[:, :, None]) & (parents[:, :, None] >= 0)
    retrieve_next_sibling.numpy()[:] = _first(same_parent & (nodes > nodes[:, None]))
    retrieve_index.numpy()[:] = np.arange(batch * width).reshape(batch, width)


def _first(flags: np.ndarray) -> np.ndarray:
    """Index of the first True along the last dimension, -1 where there is none; int64."""
    return np.where(flags.any(axis=-1), flags.argmax(axis=-1), -1)


def _write_full_mask(tree_mask: np.ndarray, ancestors: np.ndarray, lengths: list[int], width: int) -> None:
    """Write each row's tree part behind its committed prefix, which the caller has filled."""
    start = 0
    for seen, length in zip(ancestors, lengths, strict=True):
        size = width * (length + width)
        tree_mask[start : start + size].reshape(width, length + width)[:, length:] = seen
        start += size


def reconstruct_indices_from_tree_mask(
    tree_mask: torch.Tensor,
    verified_seq_len: torch.Tensor,
    positions: torch.Tensor,
    retrieve_index: torch.Tensor,
    retrieve_next_token: torch.Tensor,
    retrieve_next_sibling: torch.Tensor,
    batch_size: int,
    draft_token_num: int,
) -> None:
    """Positions and links of trees that are given as ancestor masks (n-gram drafts); outputs in place.

    tree_mask: bool, flat [b * D * D] or longer; verified_seq_len: int [b]; positions: int [b * D]; links int [b, D].
    """
    count = batch_size * draft_token_num
    mask = tree_mask[: count * draft_token_num].numpy().reshape(batch_size, draft_token_num, draft_token_num)
    strict_ancestors = np.tril(mask.astype(bool), -1)
    depths = strict_ancestors.sum(-1)
    positions.numpy()[:count] = (depths + verified_seq_len.numpy()[:, None]).reshape(-1)
    last = _first(strict_ancestors[:, :, ::-1])
    _write_links(
        np.where(last < 0, -1, draft_token_num - 1 - last), retrieve_index, retrieve_next_token, retrieve_next_sibling
    )
    # A first child is the first node that has this one as any ancestor; with parents before children it is a child.
    retrieve_next_token.numpy()[:] = _first(strict_ancestors.transpose(0, 2, 1))


def verify_tree_greedy(
    predicts: torch.Tensor,
    accept_index: torch.Tensor,
    accept_token_num: torch.Tensor,
    candidates: torch.Tensor,
    retrive_index: torch.Tensor,
    retrive_next_token: torch.Tensor,
    retrive_next_sibling: torch.Tensor,
    target_predict: torch.Tensor,
) -> None:
    """Accept the path of each tree that the target's own choices follow; outputs in place.

    candidates, retrive_*, target_predict: int [b, D]. Outputs, int32: predicts [b * D], the target's token at every
    accepted node; accept_index [b, S], numbers of the accepted nodes, -1 behind them; accept_token_num [b], accepted
    drafts without the bonus token. Argument names follow SGLang's op.
    """
    # Lists: a walk visits few nodes, and a tensor access costs more than the whole walk.
    tokens, flat = candidates.tolist(), retrive_index.tolist()
    child, sibling = retrive_next_token.tolist(), retrive_next_sibling.tolist()
    # The target's choice is looked up by running node number, as the other outputs are.
    choice = target_predict.reshape(-1).tolist()
    places = accept_index.shape[1]
    predictions, paths, counts = predicts.tolist(), accept_index.tolist(), []
    for row, path in enumerate(paths):
        node, count = 0, 0
        path[0] = last = flat[row][0]
        while count + 1 < places:
            node = child[row][node]
            while node != -1 and tokens[row][node] != choice[last]:
                node = sibling[row][node]
            if node == -1:
                break
            predictions[last] = choice[last]
            last = flat[row][node]
            count += 1
            path[count] = last
        counts.append(count)
        predictions[last] = choice[last]
    predicts.copy_(torch.tensor(predictions, dtype=predicts.dtype))
    accept_index.copy_(torch.tensor(paths, dtype=accept_index.dtype))
    accept_token_num.copy_(torch.tensor(counts, dtype=accept_token_num.dtype))
