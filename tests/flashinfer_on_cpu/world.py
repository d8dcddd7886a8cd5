"""Tiny models on SGLang's runner, their attention SGLang's FlashInfer backend, and transformers to compare with."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from sglang.benchmark.one_batch import _init_process_global_configs
from sglang.srt.configs.model_config import ModelConfig
from sglang.srt.distributed import bootstrap
from sglang.srt.layers.attention.flashinfer_backend import FlashInferAttnBackend
from sglang.srt.model_executor.model_runner import ModelRunner
from sglang.srt.runtime_context import SpawnRanks, publish
from sglang.srt.server_args import ServerArgs
from transformers import AutoModelForCausalLM, Gemma3ForCausalLM, Gemma3TextConfig, LlamaConfig, LlamaForCausalLM

from sglang_hetero_spec.drafters.base import DraftBatch
from sglang_hetero_spec.worker.draft_model import Head, SGLangDraftModel, SharedState
from sglang_hetero_spec.worker.history import TokenHistory
from sglang_hetero_spec.worker.written_slots import WrittenSlots
from tests.support.tiny_models import byte_tokenizer

VOCAB, CONTEXT, ROWS = 64, 512, 8
WINDOW = 24  # of a sliding-window layer: transformers counts the token itself, SGLang does not

_started = False


def write_model(kind: str, folder: Path, seed: int = 0) -> Path:
    """kind: gqa, mha or window (layers with and without a sliding window)."""
    torch.manual_seed(seed)
    common: dict[str, Any] = {
        "vocab_size": VOCAB,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4 if kind == "mha" else 2,
        "head_dim": 16,
        "max_position_embeddings": CONTEXT,
        "initializer_range": 0.3,
        "tie_word_embeddings": kind == "window",
        "bos_token_id": 0,
        "eos_token_id": 1,
    }
    if kind == "window":
        layers = ["sliding_attention", "full_attention"]
        config = Gemma3TextConfig(
            **common, sliding_window=WINDOW, layer_types=layers, query_pre_attn_scalar=16, sliding_window_pattern=2
        )
        model: Any = Gemma3ForCausalLM(config)
    else:
        model = LlamaForCausalLM(LlamaConfig(**common))
    path = folder / f"{kind}-{seed}"
    model.save_pretrained(path)
    byte_tokenizer().save_pretrained(path)
    return path


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def make_runner(path: Path, page_size: int, **settings: Any) -> ModelRunner:
    """The configuration that was published last is the one that SGLang reads: use one runner after the other."""
    global _started
    args = ServerArgs(
        model_path=str(path),
        device="cpu",
        attention_backend="torch_native",
        dtype="float32",
        context_length=CONTEXT,
        page_size=page_size,
        max_total_tokens=ROWS * CONTEXT + 64,
        max_running_requests=ROWS,
        mem_fraction_static=0.5,
        disable_cuda_graph=True,
        skip_tokenizer_init=True,
        disable_hybrid_swa_memory=True,
        random_seed=1,
        **settings,
    )
    publish(args, role="scheduler", ranks=SpawnRanks(world_rank=0, gpu_id=0))
    config = ModelConfig.from_server_args(args)
    if not _started:
        _init_process_global_configs()
        bootstrap.init_parallel_runtime(server_args=args, device="cpu", dist_port=_free_port())
        _started = True
    bootstrap.init_layer_runtime(model_config=config)
    runner = ModelRunner(model_config=config, mem_fraction_static=0.5, gpu_id=0, nccl_port=0, server_args=args)
    runner.alloc_memory_pool()
    runner.init_attention_backends()
    runner.init_cuda_graphs()
    return runner


@dataclass
class World:
    """A model and rows of committed tokens; every slot is garbage until it is written."""

    path: Path
    page_size: int
    runner: ModelRunner

    @classmethod
    def make(cls, path: Path, page_size: int, **settings: Any) -> World:
        world = cls(path, page_size, make_runner(path, page_size, **settings))
        world.use(FlashInferAttnBackend)
        table = world.runner.req_to_token_pool.req_to_token
        pages = torch.randperm(ROWS * CONTEXT // page_size) + 1
        slots = pages.unsqueeze(1) * page_size + torch.arange(page_size)
        table.zero_()
        # Row 0 is SGLang's, for padding.
        table[1 : ROWS + 1, :CONTEXT] = slots.flatten()[: ROWS * CONTEXT].view(ROWS, CONTEXT).to(table.dtype)
        world.spoil()
        return world

    def use(self, backend: Callable[[ModelRunner], FlashInferAttnBackend]) -> FlashInferAttnBackend:
        made = self.runner.attn_backend = backend(self.runner)
        # Its other way of reading prompts is not told of the window.
        made.use_paged = self.runner.sliding_window_size is not None
        return made

    def spoil(self) -> None:
        for number in range(self.runner.layer_info.num_effective_layers):
            for buffer in self.runner.token_to_kv_pool.get_kv_buffer(number):
                buffer.fill_(torch.nan)
                buffer[: self.page_size] = 0.0

    def clear_slot_zero(self) -> None:
        """Requests that pad a batch read it, whatever was written there: as in SGLang, finite numbers."""
        for number in range(self.runner.layer_info.num_effective_layers):
            for buffer in self.runner.token_to_kv_pool.get_kv_buffer(number):
                buffer[0] = 0.0

    @cached_property
    def reference(self) -> Any:
        model = AutoModelForCausalLM.from_pretrained(self.path, attn_implementation="eager", dtype=torch.float32)
        return model.eval()

    @property
    def table(self) -> torch.Tensor:
        return self.runner.req_to_token_pool.req_to_token

    def logits(self, tokens: Sequence[int]) -> torch.Tensor:
        """[n, V], after each token, by transformers."""
        with torch.no_grad():
            return self.reference(torch.tensor([list(tokens)])).logits[0]


class Drafting:
    """A draft model on the world's runner, with requests of given lengths (committed tokens without the root)."""

    def __init__(self, world: World, lens: Sequence[int], seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.world, self.lens = world, list(lens)
        num_slots = world.runner.token_to_kv_pool.size + world.page_size
        history = TokenHistory(*world.table.shape, "cpu")
        history.tokens.copy_(torch.randint(0, VOCAB, history.tokens.shape, generator=generator))
        self.model = SGLangDraftModel(0, world.runner, Head(VOCAB))
        self.model.attach(SharedState(world.table, history, WrittenSlots([0], num_slots, "cpu")))
        self.rows = torch.randperm(ROWS, generator=generator)[: len(self.lens)] + 1
        world.spoil()

    def batch(self, newcomers: bool = True) -> DraftBatch:
        """With lengths on the host, as on CUDA."""
        lens = torch.tensor(self.lens)
        numbers = tuple(range(len(self.lens))) if newcomers else ()
        return DraftBatch(
            rows=self.rows,
            seq_lens=lens,
            root_tokens=self.model.shared.history.read(self.rows, lens),
            seq_lens_cpu=lens.clone(),
            newcomers=numbers,
            newcomer_lens=tuple(self.lens) if newcomers else (),
        )

    def context(self, number: int) -> list[int]:
        """With the root."""
        return self.model.shared.history.tokens[self.rows[number], : self.lens[number] + 1].tolist()

    def expected(self, tails: Sequence[Sequence[int]]) -> torch.Tensor:
        """[b, V] after the root and each request's further tokens."""
        contexts = [[*self.context(number), *tail] for number, tail in enumerate(tails)]
        return torch.stack([self.world.logits(context)[-1] for context in contexts])

    def check_chain(self, batch: DraftBatch, logits: torch.Tensor, num_tokens: int) -> None:
        """logits: after the roots. These, and those after each of the likeliest tokens behind them."""
        tails: list[list[int]] = [[] for _ in self.lens]
        for offset in range(1, num_tokens + 1):
            close(logits, self.expected(tails))
            drawn = logits.argmax(-1)
            for tail, token in zip(tails, drawn.tolist(), strict=True):
                tail.append(token)
            logits = self.model.read_next(batch, drawn, offset)
        close(logits, self.expected(tails))

    def check_tree(self, batch: DraftBatch, width: int) -> None:
        """The logits after each node of random trees, whose window was read."""
        generator = torch.Generator().manual_seed(width)
        tokens = torch.randint(0, VOCAB, (len(self.lens), width), generator=generator)
        parents = [random_parents(width, generator) for _ in self.lens]
        logits = self.model.read_tree(batch, tokens, torch.tensor(parents))
        assert logits.shape == (len(self.lens), width, VOCAB)
        for number, above in enumerate(parents):
            for node, path in enumerate(paths_of(above)):
                ids = [*self.context(number), *tokens[number, path].tolist()]
                close(logits[number, node], self.world.logits(ids)[-1])


def paths_of(parents: Sequence[int]) -> list[list[int]]:
    """Of nodes behind the root (parent -1): each node's ancestors and itself, from the root on."""
    paths: list[list[int]] = []
    for node, parent in enumerate(parents):
        paths.append([*(paths[parent] if parent >= 0 else ()), node])
    return paths


def random_parents(count: int, generator: torch.Generator) -> list[int]:
    draws = torch.rand(count, generator=generator).tolist()
    return [int(draw * (node + 1)) - 1 for node, draw in zip(itertools.count(), draws, strict=False)][:count]


def close(found: torch.Tensor, wanted: torch.Tensor) -> None:
    torch.testing.assert_close(found.float(), wanted.float(), atol=2e-4, rtol=1e-3)
