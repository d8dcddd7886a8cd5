"""The hash behind SGLang's seeded sampling."""

from __future__ import annotations

import torch

_MASK = 0xFFFFFFFF


def _rotate(x: torch.Tensor, bits: int) -> torch.Tensor:
    return ((x << bits) | (x >> (32 - bits))) & _MASK


def _mix(state: torch.Tensor, block: torch.Tensor) -> torch.Tensor:
    """One MurmurHash3 (32 bit) round; values in [0, 2^32) kept in int64, whose products wrap without harm."""
    block = _rotate((block * 0xCC9E2D51) & _MASK, 15)
    block = (block * 0x1B873593) & _MASK
    return (_rotate(state ^ block, 13) * 5 + 0xE6546B64) & _MASK


def _int64(x: torch.Tensor) -> torch.Tensor:
    return x.view(torch.int64) if x.dtype == torch.uint64 else x.long()


def murmur_hash32(seed: torch.Tensor, positions: torch.Tensor, col_indices: torch.Tensor) -> torch.Tensor:
    """MurmurHash3 of (seed low, seed high, position, column), each 32 bits.

    seed: uint64 or int64 [n]; positions: int [n]; col_indices: int [m]. Returns uint32 [n, m].
    """
    seed = _int64(seed)
    state = _mix(torch.zeros_like(seed), seed & _MASK)
    state = _mix(state, (seed >> 32) & _MASK)
    state = _mix(state, _int64(positions) & _MASK)
    hashed = _mix(state[:, None], (_int64(col_indices) & _MASK)[None, :]) ^ 16
    hashed = ((hashed ^ (hashed >> 16)) * 0x85EBCA6B) & _MASK
    hashed = ((hashed ^ (hashed >> 13)) * 0xC2B2AE35) & _MASK
    return (hashed ^ (hashed >> 16)).to(torch.uint32)
