"""One server at a time, with speculation or without, and what was drawn from it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.engine_sampling.foreign import write_foreign_drafter, write_target_tokenizer
from tests.engine_sampling.laws import ExactModel, Params, Tokens
from tests.engine_sampling.settings import (
    ALONE,
    CHAIN,
    LORA,
    NGRAM,
    NONE,
    NUM_SAMPLES,
    NUM_TOKENS,
    PROMPT,
    SETTINGS,
    SLEM,
    SLRS,
    SORTED,
    TLI,
    TREE,
    Group,
)
from tests.support.adapters import write_adapter
from tests.support.figures import print_at_the_end
from tests.support.manifest import write_manifest
from tests.support.servers import Server, running_server
from tests.support.tiny_models import write_noisy_copy, write_tiny_model

PER_REQUEST = 1000
LEAVING = {"exits": [1, 2], "thresholds": [0.6]}
FIGURES: list[str] = []

Draw = dict[Group, list[Tokens]]


class Arena:
    """Draws are kept; another `round` draws anew. num_accepted: draft tokens accepted, by (round, setting, drafter)."""

    def __init__(self, folder: Path) -> None:
        self.target = write_tiny_model(folder / "target", seed=1, spread=0.35)
        write_target_tokenizer(self.target)
        self._pool = write_pool(folder, self.target)
        self._folder = folder
        self._stack, self._running = ExitStack(), ""
        self._server: Server | None = None
        self._draws: dict[tuple[str, str, int], Draw] = {}
        self._laws: dict[Params, dict[Tokens, float]] = {}
        self._model = ExactModel(self.target, PROMPT)
        self.num_accepted: dict[tuple[str, str], int] = {}

    def law(self, params: Params) -> dict[Tokens, float]:
        if params not in self._laws:
            self._laws[params] = self._model.law(params, NUM_TOKENS)
        return self._laws[params]

    def draw(self, engine: str, setting: str, number: int = 0) -> Draw:
        key = (engine, setting, number)
        if key not in self._draws:
            self._draws[key] = self._sample(self.server(engine), engine, setting)
        return self._draws[key]

    def server(self, engine: str) -> Server:
        if self._running != engine:
            self.close()
            hetero = ("--speculative-algorithm", "HETERO", "--speculative-draft-model-path", str(self._pool))
            self._server = self._stack.enter_context(
                running_server(
                    self.target,
                    self._folder / f"{engine}.log",
                    *("--dtype", "float32", "--max-total-tokens", "20000", "--max-running-requests", "256"),
                    # Measured against what is free at the moment, which other tests may be using up.
                    *("--mem-fraction-static", "0.8"),
                    *(hetero if engine == "hetero" else ()),
                )
            )
            self._running = engine
        assert self._server is not None
        return self._server

    def close(self) -> None:
        self._stack.close()
        self._running = ""

    def _sample(self, server: Server, engine: str, setting: str) -> Draw:
        groups = {**SETTINGS, **ALONE}[setting]
        each = [groups[number % len(groups)] for number in range(NUM_SAMPLES)]
        random.Random(0).shuffle(each)
        draw: Draw = {group: [] for group in groups}
        for start in range(0, NUM_SAMPLES, PER_REQUEST):
            part = each[start : start + PER_REQUEST]
            payload = {"input_ids": [PROMPT] * len(part), "sampling_params": [group.request() for group in part]}
            response = server.post("/generate", payload)
            response.raise_for_status()
            for group, answer in zip(part, response.json(), strict=True):
                draw[group].append(tuple(answer["output_ids"]))
                if engine == "hetero":
                    key = (setting, group.drafter)
                    accepted = answer["meta_info"].get("spec_num_correct_drafts", 0)
                    self.num_accepted[key] = self.num_accepted.get(key, 0) + accepted
        return draw


def write_pool(folder: Path, target: Path) -> Path:
    """Drafters that are often right: a chain and a tree, three with a vocabulary of their own; and nobody."""
    near = write_noisy_copy(target, folder / "near", seed=2, noise=0.1)
    write_target_tokenizer(near)
    nearer = write_noisy_copy(target, folder / "nearer", seed=3, noise=0.04)
    model = {"kind": "standalone", "path": str(near), "external": True, "vocab": "shared"}
    foreign = {**model, "path": str(write_foreign_drafter(nearer, folder / "foreign"))}
    adapter = write_adapter(near, folder / "adapter", size=0.1)
    drafters = [
        {"name": CHAIN, **model, "num_steps": 3},
        {"name": TREE, **model, "num_steps": 2, "topk": 3, "num_draft_tokens": 8},
        {"name": NONE, "kind": "none"},
        {"name": TLI, **foreign, "vocab": "tli", "num_steps": 3},
        {"name": SLEM, **foreign, "vocab": "slem", "num_steps": 3, "num_draft_tokens": 5},
        {"name": SLRS, **foreign, "vocab": "slrs", "num_steps": 2},
        {"name": SORTED, "kind": "sorted", "path": str(near), "external": True, "num_steps": 3, **LEAVING},
        {"name": LORA, "kind": "lora", "path": str(adapter), "external": True, "base": CHAIN},
        {"name": NGRAM, "kind": "ngram", "num_steps": 2, "topk": 4, "num_draft_tokens": 12},
    ]
    return write_manifest(folder / "pool", drafters, fallback=CHAIN, merged_draft_tokens=16)


@pytest.fixture(scope="package")
def arena(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    arena = Arena(tmp_path_factory.mktemp("sampling"))
    yield arena
    arena.close()


@pytest.fixture(scope="package")
def note() -> Callable[[str], None]:
    return FIGURES.append


print_at_the_end(lambda: [f"sampling: {line}" for line in FIGURES])
