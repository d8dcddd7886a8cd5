"""16 requests over 8 adapters of one base, against 16 requests on one drafter of its shape and on 8 such drafters.

    python -m benchmarks.lora_batch [--rank 8] [--adapters 8] [--context 128] [--threads 1] [--dtype float32]

One proposal (a chain of 4) through the forwards that serve on CPU, the three in turn, in one process; medians, and the
spread of the ratio over the rounds. Two shapes: the tests' small drafter and one of 15M parameters beside its
embeddings. Also what SGLang's own CPU LoRA layers take for the same products, and the memory. Exit code 1 if a limit is
missed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from sglang_hetero_spec import cpu

cpu.enable()

from sglang_hetero_spec.drafters.base import DraftBatch  # noqa: E402
from sglang_hetero_spec.drafters.standalone import StandaloneDrafter  # noqa: E402
from sglang_hetero_spec.pool.adapter import read_adapter_config  # noqa: E402

SLOWEST, MOST_MEMORY = 1.25, 1.5
REQUESTS, SLOTS = 16, 8192


@dataclass(frozen=True)
class Timed:
    """Seconds of each round."""

    one: list[float]
    adapters: list[float]
    separate: list[float]


def clock() -> float:
    """Seconds that this thread has computed, which other programs disturb less; of all threads where there are more."""
    return time.thread_time() if torch.get_num_threads() == 1 else time.perf_counter()


def models_of(larger: bool, count: int) -> list[Any]:
    from transformers import AutoConfig, AutoModelForCausalLM

    from benchmarks.loaded_drafter import LARGER, MODELS

    config = AutoConfig.from_pretrained(MODELS / "shared")
    if larger:
        config.update(LARGER)
    torch.manual_seed(0)
    return [AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval() for _ in range(count)]


def runner_of(model: Any, dtype: torch.dtype) -> Any:
    """The parts of an SGLang runner that CpuLlama and ServedAdapters read."""
    from types import SimpleNamespace

    from tests.support.adapters import fused_runner
    from tests.support.sglang_layers import as_sglang_layer

    model, config = model.to(dtype), model.config
    head_dim = model.model.layers[0].self_attn.head_dim
    cos, sin = model.model.rotary_emb(torch.zeros(1), torch.arange(1024).unsqueeze(0))
    rotary = SimpleNamespace(cos_sin_cache=torch.cat((cos[0, :, : head_dim // 2], sin[0, :, : head_dim // 2]), dim=-1))
    shape = (SLOTS, config.num_key_value_heads, head_dim)
    pools = [(torch.zeros(shape, dtype=dtype), torch.zeros(shape, dtype=dtype)) for _ in model.model.layers]
    layers = [as_sglang_layer(layer, number, rotary) for number, layer in enumerate(model.model.layers)]
    inner = SimpleNamespace(layers=layers, embed_tokens=model.model.embed_tokens, norm=model.model.norm)
    runner = SimpleNamespace(
        model=SimpleNamespace(config=config, lm_head=model.lm_head, model=inner),
        model_config=SimpleNamespace(vocab_size=config.vocab_size),
        token_to_kv_pool=SimpleNamespace(get_key_buffer=lambda i: pools[i][0], get_value_buffer=lambda i: pools[i][1]),
    )
    linear = fused_runner(model)
    linear.dtype = dtype
    return runner, linear


class World:
    """Drafters of one shape: the base with its adapters, and as many bases by themselves."""

    def __init__(self, larger: bool, count: int, rank: int, dtype: torch.dtype, context: int, folder: Path) -> None:
        from tests.support.adapters import write_adapter

        models = models_of(larger, count)
        self.count, self.context = count, context
        self.base = models[0]
        folders = [write_adapter(self.base, folder / str(seed), seed=seed, rank=rank) for seed in range(count)]
        runners = [runner_of(model, dtype) for model in models]
        self.drafters = [self._drafter(number, runner) for number, (runner, _) in enumerate(runners)]
        self.served = self._served(runners[0][1], folders)
        self.base_bytes = sum(weight.numel() * weight.element_size() for weight in self.base.parameters())

    def _drafter(self, number: int, runner: Any) -> StandaloneDrafter:
        from benchmarks.loaded_drafter import spec_of
        from sglang_hetero_spec.drafters.growing import chain_room
        from sglang_hetero_spec.worker.cpu_draft_model import CpuDraftModel
        from sglang_hetero_spec.worker.draft_model import Head, SharedState
        from sglang_hetero_spec.worker.history import TokenHistory
        from sglang_hetero_spec.worker.written_slots import WrittenSlots

        spec = spec_of("shared")
        model = CpuDraftModel(number, runner, Head(runner.model_config.vocab_size), chain_room(spec))
        width = SLOTS // REQUESTS
        history = TokenHistory(REQUESTS, width, "cpu")
        history.tokens.copy_(torch.randint(0, runner.model_config.vocab_size, history.tokens.shape))
        table = torch.arange(SLOTS, dtype=torch.int32).view(REQUESTS, width)
        # Numbers of adapters begin behind those of the bases.
        model.attach(SharedState(table, history, WrittenSlots([0] * (2 * self.count), SLOTS, "cpu")))
        return StandaloneDrafter(spec, model)

    def _served(self, runner: Any, folders: list[Path]) -> Any:
        from sglang_hetero_spec.worker.lora import ServedAdapters

        served = ServedAdapters(runner, "base")
        for number, folder in enumerate(folders):
            served.add(self.count + number, folder, read_adapter_config(folder, "here").scale)
        return served

    def batch(self, places: list[int]) -> DraftBatch:
        lens = torch.full((len(places),), self.context)
        return DraftBatch(torch.tensor(places), lens, torch.zeros(len(places), dtype=torch.int64))

    def one_drafter(self) -> None:
        base = self.drafters[0]
        base.model.adapters = None
        base.propose(self.batch(list(range(REQUESTS))))

    def adapters_of_one(self) -> None:
        base = self.drafters[0]
        base.model.adapters = self.served
        numbers = tuple(self.count + place % self.count for place in range(REQUESTS))
        base.propose(replace(self.batch(list(range(REQUESTS))), drafters=numbers))

    def separate_drafters(self) -> None:
        for number, drafter in enumerate(self.drafters):
            drafter.model.adapters = None
            drafter.propose(self.batch([place for place in range(REQUESTS) if place % self.count == number]))

    @property
    def adapter_bytes(self) -> int:
        """All adapters, and the stack of those at work."""
        stack = self.served.adapters.stack(self.served.adapters.numbers)
        matrices = [product.down for product in stack.products.values()]
        matrices += [part.up for product in stack.products.values() for part in product.parts]
        return self.served.adapters.num_bytes + sum(matrix.numel() * matrix.element_size() for matrix in matrices)


def timed(world: World, rounds: int) -> Timed:
    for _ in range(3):
        world.one_drafter(), world.adapters_of_one(), world.separate_drafters()
    found = Timed([], [], [])
    for number in range(rounds):
        jobs: list[tuple[Callable[[], None], list[float]]] = [
            (world.one_drafter, found.one),
            (world.adapters_of_one, found.adapters),
            (world.separate_drafters, found.separate),
        ]
        for job, seconds in jobs if number % 2 else reversed(jobs):
            job()  # so that none is timed with what another one left in the caches
            began = clock()
            job()
            seconds.append(clock() - began)
    return found


def products(world: World, rounds: int) -> tuple[float, float, float]:
    """Seconds of the base's down_proj for 16 tokens, of what ours adds, and of what SGLang's CPU layers do."""
    from sglang.srt.lora.torch_ops.lora_ops import sgemm_lora_a_fwd, sgemm_lora_b_fwd

    layer = world.drafters[0].model.llama._layers[0]
    dtype, width = layer.down.dtype, layer.down.shape[1]
    read = torch.randn(REQUESTS, width, dtype=dtype)
    numbers = tuple(world.count + place % world.count for place in range(REQUESTS))
    work = world.served.of(numbers)
    parts = [world.served.adapters._sites[world.count + n][0, "down_proj"] for n in range(world.count)]
    down, up = torch.stack([part.down for part in parts]), torch.stack([part.up for part in parts])
    ranks = torch.full((world.count,), down.shape[1])
    info = {"weight_indices": torch.arange(REQUESTS) % world.count, "seg_len_tensor": torch.ones(REQUESTS).long()}
    info |= {"lora_ranks": ranks, "scaling_tensor": torch.ones(world.count)}
    output = torch.zeros(REQUESTS, up.shape[1], dtype=dtype)

    def sglangs() -> None:
        inner = sgemm_lora_a_fwd(read, down, **info)
        offsets = torch.tensor([0, up.shape[1]])
        rest = {key: value for key, value in info.items() if key != "scaling_tensor"}
        sgemm_lora_b_fwd(inner, up, **rest, slice_offsets=offsets, base_output=output)

    def best(job: Callable[[], object]) -> float:
        seconds = []
        for _ in range(rounds):
            began = clock()
            job()
            seconds.append(clock() - began)
        return statistics.median(seconds)

    return (
        best(lambda: torch.nn.functional.linear(read, layer.down)),
        best(lambda: work.add(0, "down_proj", output, read)),
        best(sglangs),
    )


def show(name: str, world: World, found: Timed, own: tuple[float, float, float]) -> bool:
    one, adapters, separate = (statistics.median(row) for row in (found.one, found.adapters, found.separate))
    ratios = sorted(a / b for a, b in zip(found.adapters, found.one, strict=True))
    low, high = ratios[len(ratios) // 10], ratios[-1 - len(ratios) // 10]
    ratio, memory = adapters / one, 1 + world.adapter_bytes / world.base_bytes
    fast, small = ratio <= SLOWEST, memory <= MOST_MEMORY
    params = sum(weight.numel() for weight in world.base.parameters())
    print(f"{name}: {params / 1e6:.2f}M parameters, {REQUESTS} requests, context {world.context}")
    print(f"  one drafter {one * 1e3:8.2f} ms; {world.count} adapters {adapters * 1e3:8.2f} ms;", end=" ")
    print(f"{world.count} drafters {separate * 1e3:8.2f} ms")
    print(
        f"  {'ok  ' if fast else 'MISS'} adapters / one {ratio:.3f} (80% of rounds {low:.3f}-{high:.3f}, at most",
        end=" ",
    )
    print(f"{SLOWEST}); drafters / one {separate / one:.2f}")
    print(
        f"  {'ok  ' if small else 'over'} memory: base {world.base_bytes / 1e6:.2f} MB, with adapters and stack",
        end=" ",
    )
    print(f"{memory:.3f} of it (adapters alone {world.served.adapters.num_bytes / world.base_bytes:.3f})")
    print(f"  down_proj of 16 tokens: base {own[0] * 1e6:.0f} us, ours adds {own[1] * 1e6:.0f} us,", end=" ")
    print(f"SGLang's CPU LoRA layers {own[2] * 1e6:.0f} us")
    return fast


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--adapters", type=int, default=8)
    parser.add_argument("--context", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=41)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    held = True
    for name, larger in (("small", False), ("15M", True)):
        with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
            dtype = getattr(torch, args.dtype)
            with torch.inference_mode(False):
                world = World(larger, args.adapters, args.rank, dtype, args.context, Path(folder))
            held = show(name, world, timed(world, args.rounds), products(world, 101)) and held
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
