"""Slot bookkeeping of speculative decoding: which KV slots a step reads and writes.

`req_to_token` is SGLang's int32 table [requests, pool_len]: KV slot of every position of every request.
All functions write their last tensor argument (or the one named as output) in place, as SGLang's C++ ops do.
Slices of NumPy views, request after request: a slice costs 0.5 us, an index tensor over all requests 30 us to make.
"""

from __future__ import annotations

import ctypes

import numpy as np
import torch


def assign_req_to_token_pool(
    req_pool_indices: torch.Tensor,
    req_to_token: torch.Tensor,
    start_offset: torch.Tensor,
    end_offset: torch.Tensor,
    out_cache_loc: torch.Tensor,
    pool_len: int,
) -> None:
    """Write new slots into the table: row i takes [start_offset[i], end_offset[i]) from out_cache_loc in order.

    req_pool_indices, start_offset, end_offset: int [b]; out_cache_loc: int64 [sum of lengths] or longer.
    """
    table, slots, done = req_to_token.numpy(), out_cache_loc.numpy(), 0
    for row, start, end in zip(req_pool_indices.tolist(), start_offset.tolist(), end_offset.tolist(), strict=True):
        if end > start:
            table[row, start:end] = slots[done : done + end - start]
            done += end - start


def assign_extend_cache_locs(
    req_pool_indices: torch.Tensor,
    req_to_token: torch.Tensor,
    start_offset: torch.Tensor,
    end_offset: torch.Tensor,
    out_cache_loc: torch.Tensor,
    pool_len: int,
) -> None:
    """Read slots [start_offset[i], end_offset[i]) of every request into out_cache_loc, int64, request after request."""
    table, slots, done = req_to_token.numpy(), out_cache_loc.numpy(), 0
    for row, start, end in zip(req_pool_indices.tolist(), start_offset.tolist(), end_offset.tolist(), strict=True):
        if end > start:
            slots[done : done + end - start] = table[row, start:end]
            done += end - start


def assign_draft_cache_locs_contiguous(
    req_pool_indices: torch.Tensor,
    req_to_token: torch.Tensor,
    seq_lens: torch.Tensor,
    out_cache_loc: torch.Tensor,
    pool_len: int,
    topk: int,
    num_steps: int,
) -> None:
    """Read the topk * num_steps slots behind every request's committed tokens into out_cache_loc, int64."""
    width = topk * num_steps
    table, slots = req_to_token.numpy(), out_cache_loc.numpy().reshape(-1, width)
    for number, (row, length) in enumerate(zip(req_pool_indices.tolist(), seq_lens.tolist(), strict=True)):
        slots[number] = table[row, length : length + width]


def fill_bonus_tokens(
    accept_tokens: torch.Tensor, accept_lens: torch.Tensor, bonus_tokens: torch.Tensor, accept_stride: int
) -> None:
    """bonus_tokens[i] = the last accepted token of request i; accept_tokens int32, accept_stride per request."""
    index = np.arange(accept_lens.numel()) * accept_stride + accept_lens.numpy() - 1
    bonus_tokens.numpy()[:] = accept_tokens.numpy().reshape(-1)[index]


def fill_accept_out_cache_loc(
    accept_index: torch.Tensor, out_cache_loc: torch.Tensor, accept_out_cache_loc: torch.Tensor
) -> None:
    """Slots of the accepted nodes (accept_index > -1), packed at the front of accept_out_cache_loc, int64."""
    accepted = accept_index.reshape(-1)
    slots = out_cache_loc[accepted[accepted > -1].long()]
    accept_out_cache_loc[: slots.numel()] = slots


def build_draft_decode_metadata(
    req_to_token: torch.Tensor,
    req_pool_indices: torch.Tensor,
    seq_lens: torch.Tensor,
    topk: int,
    num_steps: int,
    pool_len: int,
) -> torch.Tensor:
    """One table row per draft branch: the committed prefix, then that branch's own slots.

    Returns int32 [b * topk, columns]; columns are the longest prefix plus num_steps (later ones are never read).
    """
    batch = req_pool_indices.numel()
    if batch == 0:
        return req_to_token.new_empty((0, pool_len))
    lengths = seq_lens.tolist()
    longest = max(lengths)
    source = req_to_token.numpy()
    table = np.zeros((batch, topk, longest + num_steps), dtype=source.dtype)
    for number, (row, length) in enumerate(zip(req_pool_indices.tolist(), lengths, strict=True)):
        mine = source[row]
        table[number, :, :length] = mine[:length]
        branches = mine[length : length + topk * num_steps].reshape(topk, num_steps)
        table[number, :, length : length + num_steps] = branches
    return torch.from_numpy(table).view(batch * topk, longest + num_steps)


def rotate_input_ids(
    input_ids: torch.Tensor,
    extend_start_loc: torch.Tensor,
    extend_seq_lens: torch.Tensor,
    topk_index: torch.Tensor,
    select_index: torch.Tensor | None = None,
) -> None:
    """Shift every request's segment of input_ids left by one; its last (or selected) place takes the new token.

    input_ids: int64 [tokens], changed in place; extend_*: int [b]; topk_index: int64 [b]; select_index: int64 [b].
    """
    ids, new = input_ids.numpy(), topk_index.reshape(-1).tolist()
    selected = [None] * len(new) if select_index is None else select_index.tolist()
    starts, lengths = extend_start_loc.tolist(), extend_seq_lens.tolist()
    for start, length, token, place in zip(starts, lengths, new, selected, strict=False):
        if length > 0:
            end = start + length
            ids[start : end - 1] = ids[start + 1 : end]
            ids[end - 1 if place is None else place] = token


def copy_all_layer_kv_cache(
    data_ptrs: torch.Tensor, strides: torch.Tensor, tgt_loc: torch.Tensor, src_loc: torch.Tensor
) -> None:
    """Move KV slots in every buffer: slot tgt_loc[i] takes slot src_loc[i], all read before any is written.

    data_ptrs: uint64 [buffers], addresses; strides: int64 [buffers], bytes per slot; locations: int64 [n].
    """
    if tgt_loc.numel() == 0 or torch.equal(tgt_loc, src_loc):
        return
    slots = int(torch.maximum(tgt_loc.max(), src_loc.max())) + 1
    for address, stride in zip(data_ptrs.tolist(), strides.tolist(), strict=True):
        # The op gets addresses only; the view lives no longer than this loop body.
        memory = (ctypes.c_char * (slots * stride)).from_address(address)
        dtype = torch.int64 if stride % 8 == 0 and address % 8 == 0 else torch.uint8
        rows = torch.frombuffer(memory, dtype=dtype).view(slots, -1)
        rows.index_copy_(0, tgt_loc, rows.index_select(0, src_loc))
