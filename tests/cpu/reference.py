"""What the CPU ops should do, written as plain loops over requests, tokens and heads."""

from __future__ import annotations

import itertools
import math

import torch


def attend_one(query, keys, values, scale, cap=0.0, sink=None):
    """One query head over visible keys. query: [E]; keys: [n, E]; values: [n, F]; returns float64 [F]."""
    logits = [float(query.double() @ key.double()) * scale for key in keys]
    if cap > 0:
        logits = [cap * math.tanh(x / cap) for x in logits]
    top = max([*logits, float(sink)] if sink is not None else logits)
    weights = [math.exp(x - top) for x in logits]
    total = sum(weights) + (math.exp(float(sink) - top) if sink is not None else 0.0)
    return sum((w / total) * v.double() for w, v in zip(weights, values, strict=True))


def decode_attention(
    query,
    k_buffer,
    v_buffer,
    output,
    key,
    value,
    loc,
    table,
    pool,
    lengths,
    scale,
    cap=0.0,
    window=0,
    encoder=None,
    cross=False,
    sinks=None,
):
    """In place, like the op; key and value may be None."""
    if key is not None:
        for i, slot in enumerate(loc.tolist()):
            k_buffer[slot], v_buffer[slot] = key[i], value[i]
    share = query.shape[1] // k_buffer.shape[1]
    for i, length in enumerate(lengths.tolist()):
        offset = 0 if encoder is None else int(encoder[i])
        places = range(offset) if cross else range(offset, offset + length)
        if window > 0 and not cross:
            places = [p for p in places if p - offset > length - 1 - window]
        slots = [int(table[pool[i], p]) for p in places]
        for head in range(query.shape[1]):
            if slots:
                sink = None if sinks is None else sinks[head]
                keys, values = k_buffer[slots, head // share], v_buffer[slots, head // share]
                output[i, head] = attend_one(query[i, head], keys, values, scale, cap, sink).to(output.dtype)


def extend_attention(
    query,
    key,
    value,
    output,
    k_buffer,
    v_buffer,
    table,
    pool,
    lengths,
    fresh,
    first,
    scale,
    cap=0.0,
    window=0,
    encoder=None,
    cross=False,
    sinks=None,
    tree=None,
    causal=True,
):
    """In place. tree: bool [b, D, D] or None; key and value may be None (the cache has everything)."""
    share = query.shape[1] // k_buffer.shape[1]
    for i, count in enumerate(fresh.tolist()):
        offset = 0 if encoder is None else int(encoder[i])
        length = offset if cross else int(lengths[i])
        offset = 0 if cross else offset
        prefix = 0 if cross else length - count
        for q in range(count):
            row = int(first[i]) + q
            mine = None if tree is None else tree[i]
            seen = [p for p in range(length) if cross or _sees(p, q, prefix, window, mine, causal)]
            for head in range(query.shape[1]):
                kv_head = head // share
                keys, values = [], []
                for p in seen:
                    slot = int(table[pool[i], offset + p])
                    new = not cross and p >= prefix and key is not None
                    keys.append(key[int(first[i]) + p - prefix, kv_head] if new else k_buffer[slot, kv_head])
                    values.append(value[int(first[i]) + p - prefix, kv_head] if new else v_buffer[slot, kv_head])
                if seen:
                    sink = None if sinks is None else sinks[head]
                    result = attend_one(query[row, head], torch.stack(keys), torch.stack(values), scale, cap, sink)
                    output[row, head] = result.to(output.dtype)


def _sees(p, q, prefix, window, tree, causal):
    if not causal:
        return True
    if tree is None:
        return p <= prefix + q and (window <= 0 or prefix + q - p < window)
    depth = [int(tree[node, :node].sum()) for node in range(tree.shape[0])]
    if p >= prefix and not bool(tree[q, p - prefix]):
        return False
    position = p if p < prefix else prefix + depth[p - prefix]
    return window <= 0 or prefix + depth[q] - position < window


def random_parents(rng, width):
    """A random tree, parents before children; parents[0] is -1."""
    return [-1] + [rng.randrange(node) for node in range(1, width)]


def path_to_root(parents, node):
    path = []
    while node >= 0:
        path.append(node)
        node = parents[node]
    return path


def tree_mask(parents):
    width = len(parents)
    mask = torch.zeros(width, width, dtype=torch.bool)
    for node in range(width):
        for other in path_to_root(parents, node):
            mask[node, other] = True
    return mask


def links(parents):
    """(first child, next sibling) of every node, children in ascending order, -1 for none."""
    width = len(parents)
    children = [[c for c in range(width) if parents[c] == node] for node in range(width)]
    first = [kids[0] if kids else -1 for kids in children]
    sibling = [-1] * width
    for kids in children:
        for left, right in itertools.pairwise(kids):
            sibling[left] = right
    return first, sibling


def greedy_walk(parents, tokens, choice, places):
    """Accepted nodes from the root on, at most `places` of them."""
    node, path = 0, [0]
    while len(path) < places:
        matching = [c for c in range(len(parents)) if parents[c] == node and tokens[c] == choice[node]]
        if not matching:
            break
        node = matching[0]
        path.append(node)
    return path


def murmur3(blocks):
    """MurmurHash3 of 32-bit blocks, seed 0, length 4 * blocks."""
    mask = 0xFFFFFFFF
    state = 0
    for block in blocks:
        block = (block * 0xCC9E2D51) & mask
        block = ((block << 15) | (block >> 17)) & mask
        state ^= (block * 0x1B873593) & mask
        state = _round(state)
    state ^= 4 * len(blocks)
    state = ((state ^ (state >> 16)) * 0x85EBCA6B) & mask
    state = ((state ^ (state >> 13)) * 0xC2B2AE35) & mask
    return state ^ (state >> 16)


def _round(state):
    mask = 0xFFFFFFFF
    rotated = ((state << 13) | (state >> 19)) & mask
    return (rotated * 5 + 0xE6546B64) & mask
