"""The adapters of one base in memory, and the products of those that a batch needs, stacked.

Stacking: the first matrices of all adapters lie under each other, so that one product x A^T serves every request of a
batch, whatever their adapters; a 0/1 mask leaves each request the columns of its own; one more product with the second
matrices beside each other (alpha / r folded in) ends it. No weights are gathered, adapters may differ in rank and in
the layers that they adapt, and a request of the base alone has a mask of zeros.

Where the matrices are so small that calls are what takes the time, on CPU, each request of a batch gets a copy of its
own instead (`Bank.gather`), and two batched products replace the three calls.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file

from sglang_hetero_spec.errors import HeteroError
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

# Bytes of all copies for one batch, up to which requests get their own.
SMALL_COPIES = 4 << 20

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

    def padded(self, num_inputs: int, num_outputs: int) -> LowRank:
        """With zeros for what the layer has more: SGLang rounds the inner size of an MLP up on CPU."""
        down = F.pad(self.down, (0, num_inputs - self.down.shape[1]))
        return LowRank(down, F.pad(self.up, (0, 0, 0, num_outputs - self.up.shape[0])))


def read_adapter(folder: Path, scale: float, dtype: torch.dtype, device: torch.device | str) -> dict[Site, LowRank]:
    """The checked adapter in `folder` (pool.adapter.check_adapter), which has both matrices of each site. HeteroError
    if safetensors does not read it."""
    halves: dict[Site, dict[str, torch.Tensor]] = {}
    for key, matrix in _matrices(folder / WEIGHTS_FILE).items():
        place = place_of(key)
        assert place is not None, "checked before"
        factor = scale if place.matrix == "B" else 1.0
        halves.setdefault((place.layer, place.projection), {})[place.matrix] = (matrix.float() * factor).to(
            device=device, dtype=dtype
        )
    return {site: LowRank(down=pair["A"], up=pair["B"]) for site, pair in halves.items()}


def _matrices(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise HeteroError(f"{path} is no usable safetensors file ({error}); copy or save the adapter again.") from None


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
class Copies:
    """What the b requests of a batch add to one of SGLang's linear layers: down [b, in, c], up [b, c, out]."""

    down: torch.Tensor
    up: torch.Tensor

    def add_to(self, output: torch.Tensor, read: torch.Tensor) -> None:
        """As Product.add_to, for equally many tokens of each request."""
        batch_size = self.down.shape[0]
        inner = torch.bmm(read.view(batch_size, -1, read.shape[1]), self.down)
        output.view(batch_size, -1, output.shape[1]).baddbmm_(inner, self.up)


class Bank:
    """The matrices of some adapters for one of SGLang's linear layers, padded to one rank, to be copied from.

    down: [n + 1, in, c], up: [n + 1, c, out]; the last is the base's: zeros.
    """

    def __init__(self, down: torch.Tensor, up: torch.Tensor) -> None:
        self._down, self._up = down, up

    @property
    def bytes_per_request(self) -> int:
        return (self._down[0].numel() + self._up[0].numel()) * self._down.element_size()

    def gather(self, places: torch.Tensor) -> Copies:
        """places: [b] int64."""
        return Copies(self._down.index_select(0, places), self._up.index_select(0, places))


@dataclass(frozen=True)
class Stack:
    """The products of some adapters. numbers: of the adapters, ascending. owners: the distinct rows of numbers [c], of
    whose adapter each column is. banks: the same as `products`, none where copies would be large."""

    numbers: tuple[int, ...]
    products: Mapping[tuple[int, str], Product]
    owners: tuple[torch.Tensor, ...]
    dtype: torch.dtype
    banks: Mapping[tuple[int, str], Bank]

    def copies(self, drafters: Sequence[int]) -> dict[tuple[int, str], Copies] | None:
        """For a batch whose requests are of these drafters; None where they would be large."""
        size = sum(bank.bytes_per_request for bank in self.banks.values()) * len(drafters)
        if not self.banks or size > SMALL_COPIES:
            return None
        place_of = {number: place for place, number in enumerate(self.numbers)}
        places = torch.tensor([place_of.get(number, len(place_of)) for number in drafters])
        return {key: bank.gather(places) for key, bank in self.banks.items()}

    def masks(self, drafters: torch.Tensor) -> list[torch.Tensor]:
        """drafters: [m] int64, numbers in the pool. A mask [m, c] for each of `owners`."""
        return [(drafters.unsqueeze(1) == owners).to(self.dtype) for owners in self.owners]


class Adapters:
    """The adapters of one base model, by their numbers in the pool; they come and go while the server runs.

    sizes, input_sizes: of the output and the input of each part of SGLang's linear layers, by peft's name, the same in
    all layers.
    """

    def __init__(
        self,
        sizes: Mapping[str, int],
        input_sizes: Mapping[str, int],
        dtype: torch.dtype,
        device: torch.device | str,
    ) -> None:
        self._sizes, self._input_sizes, self._dtype, self._device = sizes, input_sizes, dtype, device
        self._sites: dict[int, dict[Site, LowRank]] = {}
        self._stacked: tuple[frozenset[int], Stack | None] = frozenset(), None

    @property
    def numbers(self) -> frozenset[int]:
        return frozenset(self._sites)

    @property
    def num_bytes(self) -> int:
        return sum(matrices.num_bytes for sites in self._sites.values() for matrices in sites.values())

    def add(self, number: int, folder: Path, scale: float) -> None:
        self._sites[number] = {
            (layer, name): matrices.padded(self._input_sizes[name], self._sizes[name])
            for (layer, name), matrices in read_adapter(folder, scale, self._dtype, self._device).items()
        }

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
        banks: dict[tuple[int, str], Bank] = {}
        has_banks = self._device == "cpu" and self.num_bytes <= SMALL_COPIES
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
                    if has_banks:
                        banks[layer, fused] = self._bank(names, found, numbers)
        columns = tuple(torch.tensor(key, device=self._device) for key in owners)
        return Stack(tuple(numbers), products, columns, self._dtype, banks)

    def _bank(self, names: tuple[str, ...], found: list[tuple[int, str, LowRank]], numbers: list[int]) -> Bank:
        rank = max(matrices.down.shape[0] for _, _, matrices in found)
        size_out = sum(self._sizes[name] for name in names)
        first = found[0][2].down
        down = first.new_zeros(len(numbers) + 1, first.shape[1], len(names) * rank)
        up = first.new_zeros(len(numbers) + 1, len(names) * rank, size_out)
        for number, name, matrices in found:
            place, part, own = numbers.index(number), names.index(name), matrices.down.shape[0]
            row = sum(self._sizes[before] for before in names[:part])
            columns = slice(part * rank, part * rank + own)
            down[place, :, columns] = matrices.down.t()
            up[place, columns, row : row + self._sizes[name]] = matrices.up.t()
        return Bank(down, up)

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
