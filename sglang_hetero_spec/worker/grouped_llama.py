"""Several Llama-type draft models of one shape in one forward on CPU: their requests are one batch.

A pool has a drafter for each task, trained alike. Drafting with five of them one after the other makes every PyTorch
call five times for one request each, and the calls are what it costs. Here attention, rotation, masks and all that a
proposal does around its forwards are done once for all requests; only products with weights are made model by model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby

import torch
import torch.nn.functional as F

from sglang_hetero_spec.worker.cpu_llama import CpuLlama, LayerWeights, rows_of


class LlamaGroup:
    """Models that can be read together. members: by the number of their drafter in the pool."""

    def __init__(self, members: dict[int, CpuLlama]) -> None:
        self._members = members
        self._known: tuple[list[int], GroupedLlama] | None = None

    @property
    def numbers(self) -> list[int]:
        return list(self._members)

    def of(self, drafters: torch.Tensor) -> GroupedLlama:
        """For a batch whose requests are of these drafters, [b] int64, those of one drafter next to each other."""
        numbers = drafters.tolist()
        if self._known is None or self._known[0] != numbers:
            parts = [(self._members[number], len(list(same))) for number, same in groupby(numbers)]
            self._known = numbers, GroupedLlama([llama for llama, _ in parts], [size for _, size in parts])
        return self._known[1]


class GroupedLlama(CpuLlama):
    """CpuLlama whose first sizes[0] requests are of models[0], the next sizes[1] of models[1], and so on."""

    def __init__(self, models: Sequence[CpuLlama], sizes: Sequence[int]) -> None:
        vars(self).update(vars(models[0]))
        self._sizes_of_models = list(sizes)
        repeats = torch.tensor(self._sizes_of_models)

        def per_request(weight_of: Callable[[CpuLlama], torch.Tensor]) -> torch.Tensor:
            weights = torch.stack([weight_of(model) for model in models])
            return weights.repeat_interleave(repeats, dim=0).unsqueeze(1)

        self._embeddings = tuple(model._embeddings for model in models)
        self._final_norm = per_request(lambda model: model._final_norm)
        self._head = tuple(model._head for model in models)
        self._layers = [
            LayerWeights(
                input_norm=per_request(lambda model, n=number: model._layers[n].input_norm),
                output_norm=per_request(lambda model, n=number: model._layers[n].output_norm),
                **{name: tuple(getattr(model._layers[number], name) for model in models) for name in _OF_EACH},
            )
            for number in range(len(models[0]._layers))
        ]

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        parts = ids.split(self._sizes_of_models)
        return torch.cat([F.embedding(part, table) for part, table in zip(parts, self._embeddings, strict=True)])

    def _norm(self, hidden: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        if hidden.dim() == 2:
            weight = weight.squeeze(1)
        return F.rms_norm(hidden, hidden.shape[-1:], None, self._eps) * weight

    def _product(
        self, read: torch.Tensor, weight: Sequence[torch.Tensor], bias: Sequence[torch.Tensor | None] | None = None
    ) -> torch.Tensor:
        parts, biases = read.split(self._sizes_of_models), bias or (None,) * len(weight)
        return torch.cat([F.linear(part, one, b) for part, one, b in zip(parts, weight, biases, strict=True)])

    def _gathered(self, layer: LayerWeights, slots: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        parts = slots.split(self._sizes_of_models)
        keys = [rows_of(pool, part) for part, pool in zip(parts, layer.key_pool, strict=True)]
        values = [rows_of(pool, part) for part, pool in zip(parts, layer.value_pool, strict=True)]
        return torch.cat(keys), torch.cat(values)

    def _store(self, layer: LayerWeights, slots: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> None:
        sizes = self._sizes_of_models
        for number, part in enumerate(zip(slots.split(sizes), key.split(sizes), value.split(sizes), strict=True)):
            layer.key_pool[number][part[0]], layer.value_pool[number][part[0]] = part[1], part[2]


_OF_EACH = ("qkv", "qkv_bias", "output", "gate_up", "down", "key_pool", "value_pool")


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
    layers = [
        tuple(None if weight is None else weight.shape for name, weight in vars(layer).items() if "pool" not in name)
        for layer in llama._layers
    ]
    heads = (llama.num_heads, llama.num_kv_heads, llama.head_dim, llama.scaling, llama._eps, llama.dtype)
    return *heads, llama._head.shape, llama._embeddings.shape, tuple(layers)
