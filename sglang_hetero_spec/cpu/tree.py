"""Draft trees: building them from beam selections, reading them from masks, greedy verification.

Shapes: b requests, D nodes per tree (node 0 is the last committed token). Links are node numbers within the tree,
-1 for none: first child in `retrieve_next_token`, next child of the same parent in `retrieve_next_sibling`.
"""

from __future__ import annotations

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
    width = draft_token_num
    parents = _parents(parent_list, selected_index, topk)
    ancestors, depths = _ancestors(parents, depth)
    positions.copy_((verified_seq_len[:, None] + depths).reshape(-1))
    _write_links(parents, retrieve_index, retrieve_next_token, retrieve_next_sibling)
    if tree_mask_mode == _QLEN_ONLY:
        tree_mask[: ancestors.numel()].copy_(ancestors.reshape(-1))
    elif tree_mask_mode == _FULL_MASK:
        _write_full_mask(tree_mask, ancestors, verified_seq_len, width)
    else:
        raise NotImplementedError("The bit-packed tree mask has no CPU reader.")


def _parents(parent_list: torch.Tensor, selected_index: torch.Tensor, topk: int) -> torch.Tensor:
    """Parent node of every node, int64 [b, D]: -1 for the root and for nodes whose parent was not selected."""
    batch, drafts = selected_index.shape
    root = torch.full((batch, 1), -1, dtype=torch.int64)
    cell = torch.div(selected_index, topk, rounding_mode="floor").long()
    if parent_list.shape[1] == 0 or drafts == 0:
        return torch.cat((root, torch.zeros(batch, drafts, dtype=torch.int64)), dim=1)
    parent_cell = parent_list.gather(1, cell.clamp(max=parent_list.shape[1] - 1))
    found, position = (selected_index[:, None, :] == parent_cell[:, :, None]).max(dim=2)
    parent = torch.where(found, position + 1, torch.full_like(position, -1))
    return torch.cat((root, torch.where(cell == 0, torch.zeros_like(parent), parent)), dim=1)


def _ancestors(parents: torch.Tensor, depth: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Who sees whom: bool [b, D, D] (row sees column: itself, its ancestors, the root) and int64 depths [b, D]."""
    batch, width = parents.shape
    seen = torch.eye(width, dtype=torch.bool).expand(batch, width, width).clone()
    seen[:, :, 0] = True
    depths = torch.zeros_like(parents)
    current = parents
    for _ in range(depth):
        alive = current >= 0
        if not bool(alive.any()):
            break
        depths += alive
        # A finished chain stays at the root, which every row sees anyway.
        index = current.clamp(min=0)
        seen.scatter_(2, index[:, :, None], True)
        current = torch.where(alive, parents.gather(1, index), current)
    # An orphan's chain ends without reaching the root: it still counts as one step away from it.
    depths[:, 1:].clamp_(min=1)
    return seen, depths


def _write_links(
    parents: torch.Tensor,
    retrieve_index: torch.Tensor,
    retrieve_next_token: torch.Tensor,
    retrieve_next_sibling: torch.Tensor,
) -> None:
    """First child and next sibling of every node, children in ascending order; and the running node number."""
    batch, width = parents.shape
    nodes = torch.arange(width)
    is_child = parents[:, None, :] == nodes[None, :, None]
    retrieve_next_token.copy_(_first(is_child))
    same_parent = (parents[:, None, :] == parents[:, :, None]) & (parents[:, :, None] >= 0)
    retrieve_next_sibling.copy_(_first(same_parent & (nodes[None, :] > nodes[:, None])))
    retrieve_index.copy_(torch.arange(batch * width).view(batch, width))


def _first(flags: torch.Tensor) -> torch.Tensor:
    """Index of the first True along the last dimension, -1 where there is none; int64."""
    found, index = flags.max(dim=-1)
    return torch.where(found, index, torch.full_like(index, -1))


def _write_full_mask(
    tree_mask: torch.Tensor, ancestors: torch.Tensor, verified_seq_len: torch.Tensor, width: int
) -> None:
    """Write each row's tree part behind its committed prefix, which the caller has filled."""
    start = 0
    for seen, length in zip(ancestors, verified_seq_len.tolist(), strict=True):
        size = width * (length + width)
        tree_mask[start : start + size].view(width, length + width)[:, length:] = seen
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
    mask = tree_mask[: count * draft_token_num].view(batch_size, draft_token_num, draft_token_num)
    strict_ancestors = mask.bool().tril(-1)
    depths = strict_ancestors.sum(-1)
    positions[:count].copy_((depths + verified_seq_len[:, None]).reshape(-1))
    last_first = strict_ancestors.flip(-1)
    found, index = last_first.max(dim=-1)
    parents = torch.where(found, draft_token_num - 1 - index, torch.full_like(index, -1))
    _write_links(parents, retrieve_index, retrieve_next_token, retrieve_next_sibling)
    # A first child is the first node that has this one as any ancestor; with parents before children it is a child.
    retrieve_next_token.copy_(_first(strict_ancestors.transpose(1, 2)))


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
