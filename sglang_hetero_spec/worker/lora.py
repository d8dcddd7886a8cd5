"""Adapters at work in one base model: which requests of a batch have which, through SGLang's layers and our lean ones.

Why not SGLang's LoRA manager: it is made when the server starts with --enable-lora, for the target only
(model_runner.py, `maybe_init_lora_manager`, leaves draft workers out), takes its adapters from
`ForwardBatch.lora_ids`, which are the target's, and counts one rank and one set of modules for all models. Its layers
on CPU (lora/torch_ops/lora_ops.py) go through the requests of a batch one by one in Python, in each module, which costs
several times what the base's own layer costs (benchmarks/lora_batch.py). Two dense products and a mask
(worker.lora_weights) take a batch of any mix at once, on CPU and GPU.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from sglang_hetero_spec.cuda.transfer import from_host, kept_on_device
from sglang_hetero_spec.errors import HeteroError
from sglang_hetero_spec.worker.lora_weights import FUSED, Adapters, Copies, Product, Stack

if TYPE_CHECKING:
    from sglang.srt.model_executor.model_runner import ModelRunner

_LAYER = re.compile(rf"(?:\w+\.)*layers\.(\d+)\.(?:self_attn|mlp)\.({'|'.join(FUSED)})")


@dataclass(frozen=True)
class AtWork:
    """The adapters of one batch. products: by layer and SGLang's name; masks: as Product.add_to takes them; copies:
    what is used instead, where they are small."""

    products: Mapping[tuple[int, str], Product]
    masks: list[torch.Tensor]
    copies: Mapping[tuple[int, str], Copies] | None = None

    def add(self, layer: int, name: str, output: torch.Tensor, read: torch.Tensor) -> None:
        """To a linear layer's output what the adapters make of its input, both [..., features] and contiguous."""
        product = self.products.get((layer, name))
        if product is None:
            return
        output, read = output.view(-1, output.shape[-1]), read.reshape(-1, read.shape[-1])
        if self.copies is None:
            product.add_to(output, read, self.masks)
        else:
            self.copies[layer, name].add_to(output, read)

    def repeated(self, lens: list[int]) -> AtWork:
        """For batches whose requests have unequal numbers of tokens."""
        repeats = from_host(lens, self.masks[0].device)
        masks = [mask.repeat_interleave(repeats, dim=0, output_size=sum(lens)) for mask in self.masks]
        return AtWork(self.products, masks)

    def first(self, number: int) -> AtWork:
        """The first requests' part of masks that stay where they are."""
        return AtWork(self.products, [mask[:number] for mask in self.masks])

    def load(self, work: AtWork | None, number: int) -> None:
        """Take the masks of a batch of `number` requests, None for the base alone. Of the same products."""
        for place, mask in enumerate(self.masks):
            if work is None:
                mask.zero_()
            else:
                mask[:number].copy_(work.masks[place])


class ServedAdapters:
    """The adapters of the model of one runner.

    SGLang's forwards of the model find the adapters of their batch by hooks on its linear layers, within `during`.
    """

    def __init__(self, runner: ModelRunner, name: str) -> None:
        """name: of the base, for errors."""
        layers = _linear_layers(runner.model)
        first = {fused: module for (_, fused), module in layers.items()}
        if set(first) != set(FUSED):
            raise HeteroError(
                f"Drafter {name} has adapters, but its model {type(runner.model).__name__} has no"
                f" {', '.join(sorted(set(FUSED) - set(first)))}; use a base with plain attention and gated MLP (Llama,"
                " Qwen2, Qwen3, Mistral)."
            )
        input_sizes = {name: first[fused].input_size for fused, names in FUSED.items() for name in names}
        self.adapters = Adapters(_output_sizes(first), input_sizes, runner.dtype, runner.device)
        self._runner = runner
        self._on_cpu = runner.device == "cpu"
        self._known: tuple[object, AtWork | None] | None = None
        self._now: AtWork | None = None
        for (layer, fused), module in layers.items():
            module.register_forward_hook(self._hook(layer, fused))

    def add(self, number: int, folder: Path, scale: float) -> None:
        """What a GPU still has to do may read what is there now."""
        self._wait()
        self.adapters.add(number, folder, scale)
        self._known = None

    def remove(self, number: int) -> None:
        self._wait()
        self.adapters.remove(number)
        self._known = None

    def _wait(self) -> None:
        if not self._on_cpu:
            torch.get_device_module(self._runner.device).synchronize()

    def of(self, drafters: Sequence[int] | None) -> AtWork | None:
        """Those of a batch whose requests are of these drafters (numbers in the pool); None for the base."""
        if drafters is None or not self.adapters.numbers:
            return None
        wanted = tuple(drafters)
        if self._known is None or self._known[0] != wanted:
            # On a GPU all are stacked, whoever is there: another stack is other memory, and a copy of it all.
            stack = self.adapters.stack(wanted if self._on_cpu else self.adapters.numbers)
            self._known = wanted, None if stack is None else self._at_work(stack, wanted)
        return self._known[1]

    def nobody(self, number: int) -> AtWork | None:
        """All adapters, for `number` requests of which none has one; None where there are no adapters."""
        stack = self.adapters.stack(self.adapters.numbers)
        return None if stack is None else AtWork(stack.products, self._masks(stack, (-1,) * number))

    def _at_work(self, stack: Stack, wanted: tuple[int, ...]) -> AtWork:
        return AtWork(stack.products, self._masks(stack, wanted), stack.copies(wanted) if self._on_cpu else None)

    def _masks(self, stack: Stack, wanted: tuple[int, ...]) -> list[torch.Tensor]:
        return stack.masks(kept_on_device(wanted, torch.device(self._runner.device)))

    @contextmanager
    def during(self, work: AtWork | None) -> Iterator[None]:
        """SGLang's forwards of the model in this block are those of a batch with these adapters. Graphs that it has
        captured know of none."""
        graphs = getattr(self._runner, "prefill_cuda_graph_runner", None)
        self._now = work
        if work is not None:
            self._runner.prefill_cuda_graph_runner = None
        try:
            yield
        finally:
            self._now = None
            self._runner.prefill_cuda_graph_runner = graphs

    def _hook(self, layer: int, fused: str) -> Callable[..., None]:
        def add(module: torch.nn.Module, args: tuple[Any, ...], output: Any) -> None:
            if self._now is not None:
                self._now.add(layer, fused, output[0], args[0])

        return add


def _linear_layers(model: torch.nn.Module) -> dict[tuple[int, str], torch.nn.Module]:
    """By layer and name."""
    found = {}
    for name, module in model.named_modules():
        match = _LAYER.fullmatch(name)
        if match is not None:
            found[int(match[1]), match[2]] = module
    return found


def _output_sizes(modules: Mapping[str, torch.nn.Module]) -> dict[str, int]:
    """Of one rank: adapters are served with one."""
    qkv, gate_up = modules["qkv_proj"], modules["gate_up_proj"]
    half = gate_up.output_size // 2
    return {
        "q_proj": qkv.q_proj_shard_size,
        "k_proj": qkv.kv_proj_shard_size,
        "v_proj": qkv.v_proj_shard_size,
        "o_proj": modules["o_proj"].output_size,
        "gate_proj": half,
        "up_proj": half,
        "down_proj": modules["down_proj"].output_size,
    }
