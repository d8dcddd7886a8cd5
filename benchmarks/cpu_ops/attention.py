"""Attention over the paged cache: the loop gathers a request's keys and values and calls SDPA."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from benchmarks.cpu_ops.case import Case, Form, Forms, lengths_of
from sglang_hetero_spec.cpu.attention import decode_attention, extend_attention
from tests.cpu import reference

HEADS, KV_HEADS, SIZE, LAYERS = 8, 4, 32, 4
DRAFTS = 8
SCALE = SIZE**-0.5
# The plain reference is tried on no more than so many tokens in the batch's contexts.
_REFERENCE_TOKENS = 600


@dataclass(frozen=True)
class Batch:
    """A paged cache of LAYERS layers: [slots, KV_HEADS, SIZE] each; new tokens are packed [b * n, heads, SIZE]."""

    buffers: list[tuple[torch.Tensor, torch.Tensor]]
    table: torch.Tensor
    pool: torch.Tensor
    lengths: torch.Tensor

    def new(self, per_request: int, heads: int) -> torch.Tensor:
        return torch.randn(self.lengths.numel() * per_request, heads, SIZE)

    @property
    def has_reference(self) -> bool:
        return int(self.lengths.sum()) <= _REFERENCE_TOKENS


def make_batch(size: int, length: int) -> Batch:
    torch.manual_seed(0)
    room = length + DRAFTS
    slots = size * room + 1
    buffers = [(torch.randn(slots, KV_HEADS, SIZE), torch.randn(slots, KV_HEADS, SIZE)) for _ in range(LAYERS)]
    table = torch.zeros(size + 1, max(4096, room), dtype=torch.int32)
    table[1:, :room] = (torch.randperm(slots - 1)[: size * room] + 1).view(size, room)
    return Batch(buffers, table, torch.arange(1, size + 1), lengths_of(size, length))


def decode(size: int, length: int) -> Forms:
    """One new token per request through LAYERS layers: written to the cache, attending to all of its request."""
    batch = make_batch(size, length)
    query, key, value = batch.new(1, HEADS), batch.new(1, KV_HEADS), batch.new(1, KV_HEADS)
    loc = batch.table[batch.pool, batch.lengths - 1].long()

    def ours(out: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> None:
        decode_attention(
            query, k, v, 1.0, 1.0, out, key, value, loc, None, batch.table, batch.pool, batch.lengths, SCALE, 0.0,
            False, 0, None, None,
        )  # fmt: skip

    def loop(out: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> None:
        for i in range(size):
            k[loc[i]], v[loc[i]] = key[i], value[i]
            slots = batch.table[batch.pool[i], : batch.lengths[i]]
            keys, values = k[slots].transpose(0, 1)[None], v[slots].transpose(0, 1)[None]
            out[i] = F.scaled_dot_product_attention(
                query[i][None, :, None], keys, values, scale=SCALE, enable_gqa=True
            )[0, :, 0]

    def plain(out: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> None:
        reference.decode_attention(query, k, v, out, key, value, loc, batch.table, batch.pool, batch.lengths, SCALE)

    return _forms(batch, query, ours, loop, plain)


def tree(size: int, length: int) -> Forms:
    """DRAFTS nodes of a draft tree per request, verified in one go: the target's attention in a verify step."""
    batch = make_batch(size, length)
    query, key, value = batch.new(DRAFTS, HEADS), batch.new(DRAFTS, KV_HEADS), batch.new(DRAFTS, KV_HEADS)
    counts = torch.full((size,), DRAFTS, dtype=torch.int32)
    starts = torch.arange(0, size * DRAFTS, DRAFTS, dtype=torch.int32)
    # A chain of five with a branch at the root and one at its child.
    trees = reference.tree_mask([-1, 0, 1, 2, 3, 0, 1, 6]).expand(size, -1, -1)
    mask = trees.reshape(-1)
    lengths = batch.lengths + DRAFTS

    def ours(out: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> None:
        extend_attention(
            query, key, value, out, k, v, 1.0, 1.0, batch.table, batch.pool, lengths, counts, starts,
            DRAFTS, SCALE, 0.0, False, 0, None, None, mask, True,
        )  # fmt: skip

    def loop(out: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> None:
        for i in range(size):
            before = int(batch.lengths[i])
            rows = slice(i * DRAFTS, (i + 1) * DRAFTS)
            slots = batch.table[batch.pool[i], :before]
            keys, values = torch.cat((k[slots], key[rows])), torch.cat((v[slots], value[rows]))
            seen = torch.cat((torch.ones(DRAFTS, before, dtype=torch.bool), trees[i]), dim=1)
            out[rows] = _attend(query[rows], keys, values, seen)

    def plain(out: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> None:
        reference.extend_attention(
            query, key, value, out, k, v, batch.table, batch.pool, lengths, counts, starts, SCALE, tree=trees
        )

    return _forms(batch, query, ours, loop, plain)


def prefill(size: int, length: int) -> Forms:
    """A prompt's last quarter behind a cached prefix, causal: what chunked prefill and the prefix cache ask for."""
    batch = make_batch(size, length)
    fresh = (batch.lengths // 4).clamp(min=1)
    total = int(fresh.sum())
    query, key, value = (torch.randn(total, heads, SIZE) for heads in (HEADS, KV_HEADS, KV_HEADS))
    starts = fresh.cumsum(0) - fresh

    def ours(out: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> None:
        extend_attention(
            query, key, value, out, k, v, 1.0, 1.0, batch.table, batch.pool, batch.lengths, fresh, starts,
            int(fresh.max()), SCALE, 0.0, False, 0, None, None, None, True,
        )  # fmt: skip

    def loop(out: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> None:
        for i in range(size):
            new, first = int(fresh[i]), int(starts[i])
            rows, before = slice(first, first + new), int(batch.lengths[i]) - new
            slots = batch.table[batch.pool[i], :before]
            keys, values = torch.cat((k[slots], key[rows])), torch.cat((v[slots], value[rows]))
            seen = torch.ones(new, before + new, dtype=torch.bool).tril(before)
            out[rows] = _attend(query[rows], keys, values, seen)

    def plain(out: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> None:
        reference.extend_attention(
            query, key, value, out, k, v, batch.table, batch.pool, batch.lengths, fresh, starts, SCALE
        )

    return _forms(batch, query, ours, loop, plain)


def _attend(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """query: [n, H, E]; keys, values: [L, K, E]; seen: bool [n, L]; returns [n, H, E]."""
    result = F.scaled_dot_product_attention(
        query.transpose(0, 1)[None], keys.transpose(0, 1)[None], values.transpose(0, 1)[None],
        attn_mask=seen, scale=SCALE, enable_gqa=True,
    )  # fmt: skip
    return result[0].transpose(0, 1)


def _forms(
    batch: Batch, query: torch.Tensor, *ways: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], None]
) -> Forms:
    ours, loop, plain = (_through_layers(batch, query, way) for way in ways)
    return Forms(ours, loop, plain if batch.has_reference else None)


def _through_layers(
    batch: Batch, query: torch.Tensor, way: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], None]
) -> Form:
    outs = [torch.empty_like(query) for _ in batch.buffers]

    def step() -> list[torch.Tensor]:
        for out, (k, v) in zip(outs, batch.buffers, strict=True):
            way(out, k, v)
        return outs

    return step


CASES = (
    Case("decode attention", decode, by_length=True),
    Case("tree attention", tree, by_length=True),
    Case("prefill attention", prefill, by_length=True),
)
