"""Attention over SGLang's paged KV cache: one padded call per layer (per group of alike requests) in PyTorch.

Argument order and in-place outputs are those of SGLang's `decode_attention_cpu` and `extend_attention_cpu`, which its
`intel_amx` backend calls. H query heads, K key/value heads (H a multiple of K), head sizes E (keys) and F (values).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from sglang_hetero_spec.cpu.plan import ExtendShape, Group, plan_decode, plan_extend

# Query rows times keys above which a masked call is cut into pieces: bounds the mask and the scores.
_MAX_SCORES = 1 << 22


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
        k_buffer[loc] = _as_heads(key, k_buffer)
        v_buffer[loc] = _as_heads(value, v_buffer)
    groups = _decode_groups(req_to_token, req_pool_indices, seq_lens, is_cross_attn, sliding_window_size, encoder_lens)
    for group in groups:
        rows = query if group.queries is None else query[group.queries]
        result = _attend(
            rows.unsqueeze(1), group, k_buffer, v_buffer, k_scale, v_scale, sm_scale, logit_cap, sinks, None, None
        ).squeeze(1)
        if group.outputs is None:
            output.copy_(result)
        else:
            output[group.outputs] = result


def _decode_groups(
    req_to_token: torch.Tensor,
    req_pool_indices: torch.Tensor,
    seq_lens: torch.Tensor,
    is_cross_attn: bool,
    window: int,
    encoder_lens: torch.Tensor | None,
) -> list[Group]:
    lengths = seq_lens.tolist()
    if not lengths:
        return []
    offsets = [0] * len(lengths) if encoder_lens is None else encoder_lens.tolist()
    if is_cross_attn:
        starts, ends = [0] * len(lengths), offsets
    else:
        starts = [
            offset + max(length - window, 0) if window > 0 else offset
            for offset, length in zip(offsets, lengths, strict=True)
        ]
        ends = [offset + length for offset, length in zip(offsets, lengths, strict=True)]
    return plan_decode(req_to_token, req_pool_indices, starts, ends)


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

    q_extend, o_extend: [tokens, H, E], [tokens, H, F]. k_extend, v_extend: [tokens, K, *], used for the new
    tokens in place of the cache unless None. seq_lens, extend_seq_lens, extend_start_loc: int [b]; seq_lens includes
    the new ones. tree_mask: bool, flat, [b * D * D] or longer, for b requests of D new tokens each: row sees column (QLEN_ONLY); the
    prefix is always seen. The other arguments are as in `decode_attention`.
    """
    fresh = extend_seq_lens.tolist()
    if not fresh:
        return
    offsets = [0] * len(fresh) if encoder_lens is None else encoder_lens.tolist()
    shape = ExtendShape(
        lengths=offsets if is_cross_attn else seq_lens.tolist(),
        fresh=fresh,
        first=extend_start_loc.tolist(),
        offset=[0] * len(fresh) if is_cross_attn else offsets,
        window=sliding_window_size,
        causal=is_causal,
        cross=is_cross_attn,
    )
    if tree_mask is not None:
        nodes = max(fresh)
        tree_mask = tree_mask.reshape(-1)[: len(fresh) * nodes * nodes].view(len(fresh), nodes, nodes).bool()
    for group in plan_extend(req_to_token, req_pool_indices, shape, tree_mask):
        count = group.size * group.width
        rows = q_extend[group.first : group.first + count] if group.queries is None else q_extend[group.queries]
        rows = rows.reshape(group.size, group.width, *rows.shape[1:])
        result = _attend(
            rows, group, k_buffer, v_buffer, k_scale, v_scale, sm_scale, logit_cap, sinks, k_extend, v_extend
        ).reshape(count, *o_extend.shape[1:])
        if group.outputs is None:
            o_extend[group.first : group.first + count] = result
        else:
            o_extend[group.outputs] = result if group.kept is None else result[group.kept]


def _as_heads(new: torch.Tensor, buffer: torch.Tensor) -> torch.Tensor:
    return new.reshape(-1, *buffer.shape[1:]).to(buffer.dtype)


def _gather(
    buffer: torch.Tensor, scale: float, group: Group, new: torch.Tensor | None, dtype: torch.dtype
) -> torch.Tensor:
    """Keys or values of a group, [g, L, K, E], the new tokens taken from `new` where it is given."""
    rows = buffer.index_select(0, group.keys)
    if rows.dtype != dtype:
        rows = rows.to(dtype)
        if scale != 1.0:
            rows = rows * scale
    if new is not None and group.fresh is not None:
        source = new.reshape(-1, *buffer.shape[1:])
        if group.fresh_rows is None:
            source = source[group.first : group.first + group.fresh.numel()]
        else:
            source = source.index_select(0, group.fresh_rows)
        rows.index_copy_(0, group.fresh, source.to(dtype))
    return rows.view(group.size, group.length, *buffer.shape[1:])


def _attend(
    query: torch.Tensor,
    group: Group,
    k_buffer: torch.Tensor,
    v_buffer: torch.Tensor,
    k_scale: float,
    v_scale: float,
    sm_scale: float,
    logit_cap: float,
    sinks: torch.Tensor | None,
    new_key: torch.Tensor | None,
    new_value: torch.Tensor | None,
) -> torch.Tensor:
    """Attention of one group. query: [g, Q, H, E]; returns [g, Q, H, F]."""
    batch, width, heads, _ = query.shape
    key = _gather(k_buffer, k_scale, group, new_key, query.dtype).transpose(1, 2)
    value = _gather(v_buffer, v_scale, group, new_value, query.dtype).transpose(1, 2)
    kv_heads = key.shape[1]
    # Query heads that share a key head become more queries of that head: no copies of keys and values.
    share = heads // kv_heads
    grouped = query.reshape(batch, width, kv_heads, share, -1).permute(0, 2, 3, 1, 4)
    step = max(1, _MAX_SCORES // max(1, batch * share * group.length)) if group.mask is not None else width
    pieces = []
    for start in range(0, width, step):
        stop = min(start + step, width)
        part = grouped[:, :, :, start:stop].reshape(batch, kv_heads, share * (stop - start), -1)
        mask = None if group.mask is None else group.mask[:, start:stop]
        if logit_cap > 0 or sinks is not None:
            result = _attend_by_hand(part, key, value, mask, sm_scale, logit_cap, sinks, share)
        else:
            if mask is not None:
                mask = mask[:, None].expand(batch, share, stop - start, -1).reshape(batch, 1, part.shape[2], -1)
            result = F.scaled_dot_product_attention(part, key, value, attn_mask=mask, scale=sm_scale)
        pieces.append(result.view(batch, kv_heads, share, stop - start, -1))
    result = pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=3)
    return result.permute(0, 3, 1, 2, 4).reshape(batch, width, heads, -1)


def _attend_by_hand(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    sm_scale: float,
    logit_cap: float,
    sinks: torch.Tensor | None,
    share: int,
) -> torch.Tensor:
    """Softmax attention with a tanh cap on the logits and with sinks, in float32.

    query: [g, K, share * Q, E]; key, value: [g, K, L, *]; mask: bool [g, Q, L]; sinks: [K * share].
    """
    batch, kv_heads, rows, _ = query.shape
    scores = torch.matmul(query.float(), key.float().transpose(2, 3)).mul_(sm_scale)
    if logit_cap > 0:
        scores = scores.div_(logit_cap).tanh_().mul_(logit_cap)
    scores = scores.view(batch, kv_heads, share, rows // share, -1)
    if mask is not None:
        scores.masked_fill_(~mask[:, None, None], float("-inf"))
    if sinks is not None:
        sink = sinks.float().view(1, kv_heads, share, 1, 1).expand(*scores.shape[:-1], 1)
        weights = torch.cat((scores, sink), dim=-1).softmax(-1)[..., :-1]
    else:
        weights = scores.softmax(-1)
    weights = weights.reshape(batch, kv_heads, rows, -1)
    return torch.matmul(weights, value.float()).to(query.dtype)
