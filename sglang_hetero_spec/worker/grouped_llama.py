"""Several Llama-type draft models of one shape in one forward on CPU: their requests are one batch.

A pool has a drafter for each task, trained alike. Drafting with five of them one after the other makes every PyTorch
call five times for one request each, and the calls are what it costs. Here attention, rotation, masks and all that a
proposal does around its forwards are done once for all requests. Small weights are stacked for products of one call,
larger ones are multiplied model by model, where the calls are not what it costs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
import torch.nn.functional as F

from sglang_hetero_spec.worker.cpu_llama import CpuLlama, LayerWeights, rows_of

# Weights of a batch's models that are worth a stacked copy: 16 MB in float32, made again when the batch is another one.
STACKED = 1 << 22
# Rows of a stacked product for each row that is wanted, at most: every model gets as many as the one with most.
MOST_PADDING = 2.0


class LlamaGroup:
    """Models that can be read together. members: by the number of their drafter in the pool.

    Their KV pools become parts of one, so that one call reads or writes the slots of all.
    """

    def __init__(self, members: dict[int, CpuLlama]) -> None:
        self._members = members
        models = list(members.values())
        self._place = {number: place for place, number in enumerate(members)}
        layers = list(zip(*(model._layers for model in models), strict=True))
        self._pools = [
            (_joined([layer.key_pool for layer in same]), _joined([layer.value_pool for layer in same]))
            for same in layers
        ]
        self._known: tuple[tuple[int, ...], GroupedLlama] | None = None

    @property
    def numbers(self) -> list[int]:
        return list(self._members)

    def of(self, numbers: tuple[int, ...]) -> GroupedLlama:
        """For a batch whose requests are of these drafters, those of one drafter next to each other."""
        if self._known is None or self._known[0] != numbers:
            parts = {number: len(list(same)) for number, same in groupby(numbers)}
            models = [self._members[number] for number in parts]
            places = torch.tensor([self._place[number] for number in numbers])
            self._known = numbers, GroupedLlama(models, list(parts.values()), self._pools, places)
        return self._known[1]


class GroupedLlama(CpuLlama):
    """CpuLlama whose first sizes[0] requests are of models[0], the next sizes[1] of models[1], and so on.

    pools: keys and values of each layer, the slots of all models of the group one model behind the other; places: [b],
    each request's model among those.
    """

    def __init__(
        self,
        models: Sequence[CpuLlama],
        sizes: list[int],
        pools: Sequence[tuple[torch.Tensor, torch.Tensor]],
        places: torch.Tensor,
    ) -> None:
        vars(self).update(vars(models[0]))
        self._members, self._sizes_of_models = models, sizes
        self._first_slots = places.unsqueeze(1) * models[0]._layers[0].key_pool.shape[0]
        num_weights = len(models) * (self._head.numel() + sum(layer.num_weights for layer in self._layers))
        padding = len(models) * max(sizes) / sum(sizes)
        self._stacked = num_weights <= STACKED and padding <= MOST_PADDING
        self._padded = None if padding == 1 else _padded(sizes)
        self._embeddings = tuple(model._embeddings for model in models)
        self._final_norm = self._per_request(lambda model: model._final_norm)
        self._head = self._of_each(lambda model: model._head)
        self._layers = [self._layer_of(number, *pool) for number, pool in enumerate(pools)]

    def _layer_of(self, number: int, keys: torch.Tensor, values: torch.Tensor) -> LayerWeights:
        def of_each(name: str) -> object:
            return self._of_each(lambda model: getattr(model._layers[number], name))

        return LayerWeights(
            input_norm=self._per_request(lambda model: model._layers[number].input_norm),
            qkv=of_each("qkv"),
            qkv_bias=of_each("qkv_bias"),
            output=of_each("output"),
            output_norm=self._per_request(lambda model: model._layers[number].output_norm),
            gate_up=of_each("gate_up"),
            down=of_each("down"),
            key_pool=keys,
            value_pool=values,
        )

    def _per_request(self, weight_of: Callable[[CpuLlama], torch.Tensor]) -> torch.Tensor:
        weights = torch.stack([weight_of(model) for model in self._members])
        return weights.repeat_interleave(torch.tensor(self._sizes_of_models), dim=0).unsqueeze(1)

    def _of_each(self, weight_of: Callable[[CpuLlama], torch.Tensor | None]) -> object:
        """One weight a model; stacked: [models, in, out], and biases [models, 1, out]."""
        weights = [weight_of(model) for model in self._members]
        if weights[0] is None or not self._stacked:
            return None if weights[0] is None else tuple(weights)
        stack = torch.stack([weight.T if weight.dim() == 2 else weight for weight in weights])
        return stack if stack.dim() == 3 else stack.unsqueeze(1)

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        parts = ids.split(self._sizes_of_models)
        return torch.cat([F.embedding(part, table) for part, table in zip(parts, self._embeddings, strict=True)])

    def _norm(self, hidden: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(hidden, hidden.shape[-1:], None, self._eps) * weight

    def _product(self, read: torch.Tensor, weight: object, bias: object = None) -> torch.Tensor:
        if not self._stacked:
            parts, biases = read.split(self._sizes_of_models), bias or (None,) * len(weight)
            return torch.cat([F.linear(part, one, b) for part, one, b in zip(parts, weight, biases, strict=True)])
        rows = read if self._padded is None else read.index_select(0, self._padded.wanted)
        rows = rows.reshape(len(self._members), -1, read.shape[-1])
        found = torch.bmm(rows, weight) if bias is None else torch.baddbmm(bias, rows, weight)
        if self._padded is None:
            return found.view(*read.shape[:-1], -1)
        found = found.view(len(self._padded.wanted), *read.shape[1:-1], -1)
        return found.index_select(0, self._padded.kept)

    def _gathered(self, layer: LayerWeights, slots: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        slots = slots + self._first_slots
        return rows_of(layer.key_pool, slots), rows_of(layer.value_pool, slots)

    def _store(self, layer: LayerWeights, slots: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> None:
        slots = slots + self._first_slots
        layer.key_pool[slots], layer.value_pool[slots] = key, value


@dataclass(frozen=True)
class _Padded:
    """As many requests for each model as the one with most has. wanted: [models * most], the request in each place, the
    model's first one again where there is none; kept: [b], the places of the requests."""

    wanted: torch.Tensor
    kept: torch.Tensor


def _padded(sizes: list[int]) -> _Padded:
    most = torch.arange(max(sizes))
    lens = torch.tensor(sizes).unsqueeze(1)
    real = most < lens
    wanted = lens.cumsum(0) - lens + torch.where(real, most, 0)
    return _Padded(wanted.flatten(), real.flatten().nonzero().squeeze(1))


def _joined(pools: list[torch.Tensor]) -> torch.Tensor:
    """One tensor [models * slots, kv heads, head size], of which each of the pools is a part from now on."""
    whole = torch.stack(pools)
    for pool, part in zip(pools, whole, strict=True):
        pool.data = part
    return whole.flatten(0, 1)


def group_alike(llamas: dict[int, CpuLlama]) -> list[LlamaGroup]:
    """Those that can be read together, by the numbers of their drafters; a model without company is in none."""
    groups: list[dict[int, CpuLlama]] = []
    for number, llama in llamas.items():
        for group in groups:
            if _alike(next(iter(group.values())), llama):
                group[number] = llama
                break
        else:
            groups.append({number: llama})
    return [LlamaGroup(group) for group in groups if len(group) > 1]


def _alike(one: CpuLlama, other: CpuLlama) -> bool:
    return _shape(one) == _shape(other) and torch.equal(one._cos_sin, other._cos_sin)


def _shape(llama: CpuLlama) -> tuple[object, ...]:
    layers = [tuple(None if each is None else each.shape for each in vars(layer).values()) for layer in llama._layers]
    heads = (llama.num_heads, llama.num_kv_heads, llama.head_dim, llama.scaling, llama._eps, llama.dtype)
    return *heads, llama._head.shape, llama._embeddings.shape, tuple(layers)
