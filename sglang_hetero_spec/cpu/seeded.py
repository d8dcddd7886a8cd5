"""The hash behind SGLang's seeded sampling: in NumPy, or in plain integers where there are few."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import torch

_MASK = 0xFFFFFFFF
# Below so many hashes integers are quicker than arrays.
_FEW = 16

# Integers of 32 bits: one, or many as uint64, whose products wrap without harm.
_Bits = TypeVar("_Bits", int, np.ndarray)


def _rotate(x: _Bits, bits: int) -> _Bits:
    return ((x << bits) | (x >> (32 - bits))) & _MASK


def _mix(state: _Bits, block: _Bits) -> _Bits:
    """One MurmurHash3 (32 bit) round."""
    block = _rotate((block * 0xCC9E2D51) & _MASK, 15)
    block = (block * 0x1B873593) & _MASK
    return (_rotate(state ^ block, 13) * 5 + 0xE6546B64) & _MASK


def _finish(state: _Bits) -> _Bits:
    state = state ^ 16
    state = ((state ^ (state >> 16)) * 0x85EBCA6B) & _MASK
    state = ((state ^ (state >> 13)) * 0xC2B2AE35) & _MASK
    return state ^ (state >> 16)


def _of_request(seed: _Bits, position: _Bits) -> _Bits:
    """The state in front of the column."""
    state = _mix(seed * 0, seed & _MASK)
    return _mix(_mix(state, seed >> 32), position & _MASK)


def murmur_hash32(seed: torch.Tensor, positions: torch.Tensor, col_indices: torch.Tensor) -> torch.Tensor:
    """MurmurHash3 of (seed low, seed high, position, column), each 32 bits.

    seed: uint64 or int64 [n]; positions: int [n]; col_indices: int [m]. Returns uint32 [n, m].
    """
    seeds = seed.numpy().view(np.uint64)
    if len(seeds) * col_indices.numel() <= _FEW:
        states = [_of_request(*pair) for pair in zip(seeds.tolist(), positions.tolist(), strict=True)]
        columns = [column & _MASK for column in col_indices.tolist()]
        few = np.array([[_finish(_mix(state, column)) for column in columns] for state in states], dtype=np.uint32)
        return torch.from_numpy(few.reshape(len(seeds), len(columns)))
    states = _of_request(seeds, _unsigned(positions))
    hashed = _finish(_mix(states[:, None], _unsigned(col_indices)[None, :] & _MASK))
    return torch.from_numpy(hashed.astype(np.uint32))


def _unsigned(x: torch.Tensor) -> np.ndarray:
    return x.numpy().astype(np.uint64)
