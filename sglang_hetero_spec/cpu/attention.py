"""Attention over SGLang's paged KV cache: one padded call per layer (per group of alike requests) in PyTorch.

Argument order and in-place outputs are those of SGLang's `decode_attention_cpu` and `extend_attention_cpu`, which its
`intel_amx` backend calls. H query heads, K key/value heads (H a multiple of K), head sizes E (keys) and F (values).
"""

from __future__ import annotations

import math
import threading
from typing import NamedTuple

import torch
import torch.nn.functional as F

from sglang_hetero_spec.cpu.plan import Group, PlanCache, Shape

# Query rows times keys above which a masked call is cut into pieces: bounds the mask and the scores.
_MAX_SCORES = 1 << 22

# Gathered keys and values of so many bytes go to memory that is kept: fresh pages would cost more than the copy.
_MIN_SCRATCH, _MAX_SCRATCH = 64 << 10, 64 << 20


class _Scratch(threading.local):
    """Memory that every layer of this thread uses in turn."""

    def __init__(self) -> None:
        self._bytes: dict[str, torch.Tensor] = {}

    def take(self, place: str, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor | None:
        """An uninitialised tensor, valid until the next take of this place; None where malloc is as good or safer."""
        size = math.prod(shape) * dtype.itemsize
        if not _MIN_SCRATCH < size <= _MAX_SCRATCH:
            return None
        held = self._bytes.get(place)
        if held is None or held.numel() < size:
            held = self._bytes[place] = torch.empty(max(size, 1 << 16), dtype=torch.uint8)
        return held[:size].view(dtype).view(shape)


_plans = PlanCache()
_scratch = _Scratch()


class _Layer(NamedTuple):
    """What a layer brings to every group. New keys and values are packed [tokens, K, *], or None."""

    k_buffer: torch.Tensor
    v_buffer: torch.Tensor
    k_scale: float
    v_scale: float
    table: torch.Tensor
    scale: float
    cap: float
    sinks: torch.Tensor | None
    new_key: torch.Tensor | None = None
    new_value: torch.Tensor | None = None


def decode_attention(
    query: torch.Tensor,
    k_buffer: torch.Tensor,
    v_buffer: torch.Tensor,
    k_scale: float,
    v_scale: float,
    output: torch.Tensor,
    key: torch.Tensor | None,
    value: torch.Tensor | None,
    loc: torch.Tensor | None,
    attn_logits: torch.Tensor | None,
    req_to_token: torch.Tensor,
    req_pool_indices: torch.Tensor,
    seq_lens: torch.Tensor,
    sm_scale: float,
    logit_cap: float,
    is_cross_attn: bool,
    sliding_window_size: int,
    encoder_lens: torch.Tensor | None,
    sinks: torch.Tensor | None,
) -> None:
    """One new token per request: store its key and value, attend to the request's whole cache.

    query, output: [b, H, E], [b, H, F]. Buffers: [slots, K, E], [slots, K, F]; they take key and value ([b, K, *]) at
    slots loc (int64 [b]) unless those are None. req_to_token: int32 [requests, positions]. req_pool_indices, seq_lens:
    int [b]. sliding_window_size: keys seen, the own one included; 0 for all. sinks: float [H], a logit without value.
    attn_logits is scratch space of SGLang's own kernel and is not used.
    """
    if key is not None and value is not None:
        k_buffer.index_copy_(0, loc, _like(key, k_buffer, k_buffer.dtype))
        v_buffer.index_copy_(0, loc, _like(value, v_buffer, v_buffer.dtype))
    batch = query.shape[0]
    encoder = (0,) * batch if encoder_lens is None else tuple(encoder_lens.tolist())
    shape = Shape(
        rows=tuple(req_pool_indices.tolist()),
        lengths=encoder if is_cross_attn else tuple(seq_lens.tolist()),
        fresh=(1,) * batch,
        first=tuple(range(batch)),
        offset=(0,) * batch if is_cross_attn else encoder,
        window=0 if is_cross_attn else sliding_window_size,
        causal=not is_cross_attn,
        columns=req_to_token.shape[1],
    )
    layer = _Layer(k_buffer, v_buffer, k_scale, v_scale, req_to_token, sm_scale, logit_cap, sinks)
    _run(_plans.get(shape, None), layer, query, output)


def extend_attention(
    q_extend: torch.Tensor,
    k_extend: torch.Tensor | None,
    v_extend: torch.Tensor | None,
    o_extend: torch.Tensor,
    k_buffer: torch.Tensor,
    v_buffer: torch.Tensor,
    k_scale: float,
    v_scale: float,
    req_to_token: torch.Tensor,
    req_pool_indices: torch.Tensor,
    seq_lens: torch.Tensor,
    extend_seq_lens: torch.Tensor,
    extend_start_loc: torch.Tensor,
    max_len_extend: int,
    sm_scale: float,
    logit_cap: float,
    is_cross_attn: bool,
    sliding_window_size: int,
    encoder_lens: torch.Tensor | None,
    sinks: torch.Tensor | None,
    tree_mask: torch.Tensor | None = None,
    is_causal: bool = True,
) -> None:
    """Several new tokens per request, packed one request after another; their keys may be in the cache already.

    q_extend, o_extend: [tokens, H, E], [tokens, H, F]. k_extend, v_extend: [tokens, K, *], used for the new tokens in
    place of the cache unless None. seq_lens, extend_seq_lens, extend_start_loc: int [b]; seq_lens includes the new
    tokens. tree_mask: bool, flat, [b * D * D] or longer, for b requests of D new tokens each: row sees column
    (QLEN_ONLY); the prefix is always seen. The other arguments are as in `decode_attention`.
    """
    fresh = tuple(extend_seq_lens.tolist())
    batch = len(fresh)
    encoder = (0,) * batch if encoder_lens is None else tuple(encoder_lens.tolist())
    causal = is_causal and not is_cross_attn
    shape = Shape(
        rows=tuple(req_pool_indices.tolist()),
        lengths=encoder if is_cross_attn else tuple(seq_lens.tolist()),
        fresh=fresh,
        first=tuple(extend_start_loc.tolist()),
        offset=(0,) * batch if is_cross_attn else encoder,
        window=sliding_window_size if causal else 0,
        causal=causal,
        columns=req_to_token.shape[1],
    )
    if tree_mask is not None:
        nodes = max(fresh, default=0)
        tree_mask = tree_mask[: batch * nodes * nodes]
    new_key, new_value = (None, None) if is_cross_attn else (k_extend, v_extend)
    layer = _Layer(k_buffer, v_buffer, k_scale, v_scale, req_to_token, sm_scale, logit_cap, sinks, new_key, new_value)
    _run(_plans.get(shape, tree_mask), layer, q_extend, o_extend)


def _run(groups: list[Group], layer: _Layer, query: torch.Tensor, output: torch.Tensor) -> None:
    """Attend group after group. query: [tokens, H, E]; output: [tokens, H, F], written in place."""
    for group in groups:
        count = group.size * group.width
        rows = _packed(query, group) if group.queries is None else query.index_select(0, group.queries)
        result = _attend(rows.view(group.size, group.width, *rows.shape[1:]), group, layer)
        if group.outputs is None:
            _packed(output, group).view(result.shape).copy_(result)
        else:
            result = result.reshape(count, *output.shape[1:])
            output.index_copy_(0, group.outputs, result if group.kept is None else result.index_select(0, group.kept))


def _packed(tokens: torch.Tensor, group: Group) -> torch.Tensor:
    """The rows of a group that lies in one piece."""
    count = group.size * group.width
    return tokens if tokens.shape[0] == count else tokens[group.first : group.first + count]


def _like(new: torch.Tensor, buffer: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """New keys or values in the layout of the cache: [tokens, K, E]."""
    if new.dim() != 3:
        new = new.reshape(-1, *buffer.shape[1:])
    return new if new.dtype == dtype else new.to(dtype)


def _gather(
    place: str,
    buffer: torch.Tensor,
    scale: float,
    slots: torch.Tensor,
    group: Group,
    new: torch.Tensor | None,
    dtype: torch.dtype,
) -> torch.Tensor:
    """Keys or values of a group, [g, K, L, E], this forward's tokens taken from `new` where it is given."""
    space = _scratch.take(place, (slots.numel(), *buffer.shape[1:]), buffer.dtype)
    rows = buffer.index_select(0, slots) if space is None else torch.index_select(buffer, 0, slots, out=space)
    if rows.dtype != dtype:
        rows = rows.to(dtype)
        if scale != 1.0:
            rows = rows * scale
    if new is not None:
        source = _like(new, buffer, dtype)
        source = _packed(source, group) if group.fresh_rows is None else source.index_select(0, group.fresh_rows)
        rows.index_copy_(0, group.fresh, source)
    return rows.view(group.size, group.length, *buffer.shape[1:]).transpose(1, 2)


def _attend(query: torch.Tensor, group: Group, layer: _Layer) -> torch.Tensor:
    """Attention of one group. query: [g, Q, H, E]; returns [g, Q, K, H / K, F], perhaps strided."""
    batch, width, heads, size = query.shape
    slots = layer.table.view(-1).index_select(0, group.entries)
    key = _gather("keys", layer.k_buffer, layer.k_scale, slots, group, layer.new_key, query.dtype)
    value = _gather("values", layer.v_buffer, layer.v_scale, slots, group, layer.new_value, query.dtype)
    kv_heads = key.shape[1]
    # Query heads that share a key head become more queries of that head: no copies of keys and values.
    share = heads // kv_heads
    bounded = layer.cap > 0 or layer.sinks is not None or group.mask is not None
    step = max(1, _MAX_SCORES // (batch * share * group.length)) if bounded else width
    if step >= width:
        if width == 1:
            part = query.view(batch, kv_heads, share, size)
            return _softmax_attention(part, key, value, group, layer, share, 0, 1).unsqueeze(1)
        result = _queries(query, key, value, group, layer, share, 0, width)
    else:
        cuts = [(start, min(start + step, width)) for start in range(0, width, step)]
        result = torch.cat([_queries(query, key, value, group, layer, share, *cut) for cut in cuts], dim=3)
    return result.permute(0, 3, 1, 2, 4)


def _queries(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    group: Group,
    layer: _Layer,
    share: int,
    start: int,
    stop: int,
) -> torch.Tensor:
    """Queries [start, stop) of a group. query: [g, Q, H, E]; returns [g, K, share, stop - start, F]."""
    batch, _, heads, size = query.shape
    kv_heads = heads // share
    part = query if stop - start == query.shape[1] else query[:, start:stop]
    part = part.unflatten(2, (kv_heads, share)).permute(0, 2, 3, 1, 4)
    part = part.reshape(batch, kv_heads, share * (stop - start), size)
    result = _softmax_attention(part, key, value, group, layer, share, start, stop)
    return result.view(batch, kv_heads, share, stop - start, -1)


def _softmax_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    group: Group,
    layer: _Layer,
    share: int,
    start: int,
    stop: int,
) -> torch.Tensor:
    """query: [g, K, share * Q, E]; key, value: [g, K, L, *]; returns [g, K, share * Q, F]."""
    if layer.cap > 0 or layer.sinks is not None:
        return _attend_by_hand(query, key, value, group.bias(share, start, stop, torch.float32), layer, share)
    bias = group.bias(share, start, stop, query.dtype)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=layer.scale)


def _attend_by_hand(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bias: torch.Tensor | None,
    layer: _Layer,
    share: int,
) -> torch.Tensor:
    """Softmax attention with a tanh cap on the logits and with sinks, in float32.

    query: [g, K, share * Q, E]; key, value: [g, K, L, *]; bias: float32 [g, 1, share * Q, L] or None.
    """
    scores = torch.matmul(query.float(), key.float().transpose(2, 3)).mul_(layer.scale)
    if layer.cap > 0:
        scores = scores.div_(layer.cap).tanh_().mul_(layer.cap)
    if bias is not None:
        scores += bias
    if layer.sinks is not None:
        kv_heads, rows = query.shape[1], query.shape[2]
        sink = layer.sinks.float().view(kv_heads, share, 1).expand(-1, -1, rows // share).reshape(1, kv_heads, rows, 1)
        scores = torch.cat((scores, sink.expand(query.shape[0], -1, -1, 1)), dim=-1)
    weights = scores.softmax(-1)
    if layer.sinks is not None:
        weights = weights[..., :-1]
    return torch.matmul(weights, value.float()).to(query.dtype)
