"""Slot bookkeeping of speculative decoding: which KV slots a step reads and writes.

`req_to_token` is SGLang's int32 table [requests, pool_len]: KV slot of every position of every request.
All functions write their last tensor argument (or the one named as output) in place, as SGLang's C++ ops do.
"""

from __future__ import annotations

import ctypes

import torch


def _ragged(starts: torch.Tensor, ends: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Row number and column of every element of ragged rows [start, end), row after row; int64 [sum of lengths]."""
    lengths = (ends - starts).clamp(min=0).long()
    rows = torch.repeat_interleave(torch.arange(lengths.numel()), lengths)
    first = torch.cumsum(lengths, 0) - lengths
    columns = torch.arange(rows.numel()) + (starts.long() - first)[rows]
    return rows, columns


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
    rows, columns = _ragged(start_offset, end_offset)
    slots = out_cache_loc[: rows.numel()].to(req_to_token.dtype)
    req_to_token[req_pool_indices.long()[rows], columns] = slots


def assign_extend_cache_locs(
    req_pool_indices: torch.Tensor,
    req_to_token: torch.Tensor,
    start_offset: torch.Tensor,
    end_offset: torch.Tensor,
    out_cache_loc: torch.Tensor,
    pool_len: int,
) -> None:
    """Read slots [start_offset[i], end_offset[i]) of every request into out_cache_loc, int64, request after request."""
    rows, columns = _ragged(start_offset, end_offset)
    out_cache_loc[: rows.numel()] = req_to_token[req_pool_indices.long()[rows], columns].to(out_cache_loc.dtype)


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
    columns = seq_lens.long()[:, None] + torch.arange(topk * num_steps)
    slots = req_to_token[req_pool_indices.long()[:, None], columns]
    out_cache_loc.copy_(slots.reshape(-1))


def fill_bonus_tokens(
    accept_tokens: torch.Tensor, accept_lens: torch.Tensor, bonus_tokens: torch.Tensor, accept_stride: int
) -> None:
    """bonus_tokens[i] = the last accepted token of request i; accept_tokens int32, accept_stride per request."""
    batch = accept_lens.numel()
    index = torch.arange(batch) * accept_stride + accept_lens.long() - 1
    bonus_tokens.copy_(accept_tokens.reshape(-1)[index])


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
    lengths = seq_lens.long()
    longest = int(lengths.max())
    steps = torch.arange(num_steps)
    rows = req_pool_indices.long()
    table = req_to_token.new_zeros((batch, topk, longest + num_steps))
    table[:, :, :longest] = req_to_token[:, :longest].index_select(0, rows)[:, None, :]
    branch_start = lengths[:, None] + torch.arange(topk) * num_steps
    slots = req_to_token[rows[:, None, None], branch_start[:, :, None] + steps]
    columns = (lengths[:, None, None] + steps).expand(batch, topk, num_steps)
    table.scatter_(2, columns, slots)
    return table.view(batch * topk, longest + num_steps)


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
    lengths, starts = extend_seq_lens.long(), extend_start_loc.long()
    rows, columns = _ragged(torch.zeros_like(lengths), lengths - 1)
    places = starts[rows] + columns
    input_ids[places] = input_ids[places + 1]
    filled = lengths > 0
    last = starts + lengths - 1 if select_index is None else select_index
    input_ids[last[filled]] = topk_index.reshape(-1)[: filled.numel()][filled].to(input_ids.dtype)


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
