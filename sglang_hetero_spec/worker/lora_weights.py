"""The adapters of one base in memory, and the products of those that a batch needs, stacked.

Stacking: the first matrices of all adapters lie under each other, so that one product x A^T serves every request of a
batch, whatever their adapters; a 0/1 mask leaves each request the columns of its own; one more product with the second
matrices beside each other (alpha / r folded in) ends it. No weights are gathered, adapters may differ in rank and in
the layers that they adapt, and a request of the base alone has a mask of zeros.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from sglang_hetero_spec.pool.adapter import WEIGHTS_FILE, place_of

# SGLang's linear layers, and what peft calls the parts of them, in the order of their output rows.
FUSED = {
    "qkv_proj": ("q_proj", "k_proj", "v_proj"),
    "o_proj": ("o_proj",),
    "gate_up_proj": ("gate_proj", "up_proj"),
    "down_proj": ("down_proj",),
}
# Second matrices of several parts up to this size are one matrix, padded with zeros: one call is worth more than work.
SMALL_MATRIX = 1 << 16

# By layer and peft's name of the part.
Site = tuple[int, str]


@dataclass(frozen=True)
class LowRank:
    """What one adapter adds to one linear layer: down [r, in], up [out, r], the scale folded into `up`."""

    down: torch.Tensor
    up: torch.Tensor

    @property
    def num_bytes(self) -> int:
        return sum(matrix.numel() * matrix.element_size() for matrix in (self.down, self.up))


def read_adapter(folder: Path, scale: float, dtype: torch.dtype, device: torch.device | str) -> dict[Site, LowRank]:
    """The checked adapter in `folder` (pool.adapter.check_adapter), which has both matrices of each site."""
    halves: dict[Site, dict[str, torch.Tensor]] = {}
    for key, matrix in load_file(folder / WEIGHTS_FILE).items():
        place = place_of(key)
        assert place is not None, "checked before"
        factor = scale if place.matrix == "B" else 1.0
        halves.setdefault((place.layer, place.projection), {})[place.matrix] = (matrix.float() * factor).to(
            device=device, dtype=dtype
        )
    return {site: LowRank(down=pair["A"], up=pair["B"]) for site, pair in halves.items()}


@dataclass(frozen=True)
class Part:
    """up [rows, columns]: from some columns of the first product to some rows of the layer's output."""

    columns: slice
    rows: slice
    up: torch.Tensor


@dataclass(frozen=True)
class Product:
    """What a batch's adapters add to one of SGLang's linear layers.

    down: [c, in], the first matrices; parts: what is made of their products. owners: number within `Stack.owners`.
    """

    down: torch.Tensor
    parts: tuple[Part, ...]
    owners: int

    def add_to(self, output: torch.Tensor, read: torch.Tensor, masks: list[torch.Tensor]) -> None:
        """Adds to the layer's output [t, out] what it is of its input [t, in]. masks: `Stack.masks`, whose m rows
        stand for t / m tokens each."""
        mask = masks[self.owners]
        inner = F.linear(read, self.down)
        inner.view(mask.shape[0], -1, mask.shape[1]).mul_(mask.unsqueeze(1))
        for part in self.parts:
            output[:, part.rows].addmm_(inner[:, part.columns], part.up.t())


@dataclass(frozen=True)
class Stack:
    """The products of some adapters. owners: the distinct rows of numbers [c], of whose adapter each column is."""

    products: Mapping[tuple[int, str], Product]
    owners: tuple[torch.Tensor, ...]
    dtype: torch.dtype

    def masks(self, drafters: torch.Tensor) -> list[torch.Tensor]:
        """drafters: [m] int64, numbers in the pool. A mask [m, c] for each of `owners`."""
        return [(drafters.unsqueeze(1) == owners).to(self.dtype) for owners in self.owners]


class Adapters:
    """The adapters of one base model, by their numbers in the pool; they come and go while the server runs.

    sizes: rows of the output of each part of SGLang's linear layers, by peft's name, the same in all layers.
    """

    def __init__(self, sizes: Mapping[str, int], dtype: torch.dtype, device: torch.device | str) -> None:
        self._sizes, self._dtype, self._device = sizes, dtype, device
        self._sites: dict[int, dict[Site, LowRank]] = {}
        self._stacked: tuple[frozenset[int], Stack | None] = frozenset(), None

    @property
    def numbers(self) -> frozenset[int]:
        return frozenset(self._sites)

    @property
    def num_bytes(self) -> int:
        return sum(matrices.num_bytes for sites in self._sites.values() for matrices in sites.values())

    def add(self, number: int, folder: Path, scale: float) -> None:
        self._sites[number] = read_adapter(folder, scale, self._dtype, self._device)

    def remove(self, number: int) -> None:
        del self._sites[number]
        self._stacked = frozenset(), None

    def stack(self, wanted: Collection[int]) -> Stack | None:
        """Of the adapters among the `wanted` numbers; None if there is none. The last one is kept: a batch's adapters
        change only when requests come and go."""
        present = self.numbers.intersection(wanted)
        if present != self._stacked[0]:
            self._stacked = present, self._make(sorted(present)) if present else None
        return self._stacked[1]

    def _make(self, numbers: list[int]) -> Stack:
        owners: dict[tuple[int, ...], int] = {}
        products: dict[tuple[int, str], Product] = {}
        layers = {layer for number in numbers for layer, _ in self._sites[number]}
        for layer in sorted(layers):
            for fused, names in FUSED.items():
                found = [
                    (number, name, self._sites[number][layer, name])
                    for name in names
                    for number in numbers
                    if (layer, name) in self._sites[number]
                ]
                if found:
                    key = tuple(number for number, _, matrices in found for _ in range(matrices.down.shape[0]))
                    place = owners.setdefault(key, len(owners))
                    products[layer, fused] = self._product(names, found, place)
        columns = tuple(torch.tensor(key, device=self._device) for key in owners)
        return Stack(products, columns, self._dtype)

    def _product(self, names: tuple[str, ...], found: list[tuple[int, str, LowRank]], owners: int) -> Product:
        down = torch.cat([matrices.down for _, _, matrices in found])
        parts: list[Part] = []
        row = column = 0
        for name in names:
            ups = [matrices.up for _, own, matrices in found if own == name]
            width = sum(up.shape[1] for up in ups)
            if ups:
                rows = slice(row, row + self._sizes[name])
                parts.append(Part(slice(column, column + width), rows, torch.cat(ups, dim=1)))
            row, column = row + self._sizes[name], column + width
        if len(parts) > 1 and row * column <= SMALL_MATRIX:
            parts = [_padded(parts, row, column)]
        return Product(down, tuple(parts), owners)


def _padded(parts: list[Part], num_rows: int, num_columns: int) -> Part:
    up = parts[0].up.new_zeros(num_rows, num_columns)
    for part in parts:
        up[part.rows, part.columns] = part.up
    return Part(slice(0, num_columns), slice(0, num_rows), up)
