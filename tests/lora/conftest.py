"""One HETERO server over a base and its adapters; the target is the base with one of them merged into it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.engine.conftest import assert_nothing_left
from tests.engine.fleet import EXACT, ROOMY, STRICT
from tests.support.adapters import merged, write_adapter
from tests.support.manifest import write_manifest
from tests.support.servers import Server, running_server
from tests.support.tiny_models import byte_tokenizer, write_tiny_model

RIGHT, WRONG = "right", ("wrong-1", "wrong-2", "wrong-3")
NUM_STEPS = 4
TREE_STEPS = 2  # with every node that the tree can have
SPARE = "spare"  # on disk, not in the pool


@dataclass(frozen=True)
class Adapted:
    """target: the base with the adapter RIGHT. adapters: folders by name, SPARE among them."""

    target: Path
    base: Path
    pool: Path
    adapters: dict[str, Path]


def _lora(name: str, folder: Path, **shape: int) -> dict:
    return {"name": name, "kind": "lora", "path": str(folder), "external": True, "base": "base", **shape}


@pytest.fixture(scope="package")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> Adapted:
    from transformers import LlamaForCausalLM

    folder = tmp_path_factory.mktemp("adapted")
    base = write_tiny_model(folder / "base", seed=1)
    names = (RIGHT, *WRONG, SPARE)
    adapters = {
        name: write_adapter(base, folder / name, seed=seed, rank=2 + seed, size=0.6) for seed, name in enumerate(names)
    }
    merged(LlamaForCausalLM.from_pretrained(base), adapters[RIGHT]).save_pretrained(folder / "target")
    byte_tokenizer().save_pretrained(folder / "target")
    write_tiny_model(folder / "other", seed=9)
    drafters = [
        # An adapter may stand before its base.
        _lora(RIGHT, adapters[RIGHT]),
        {"name": "base", "kind": "standalone", "path": str(base), "external": True, "num_steps": NUM_STEPS},
        *(_lora(name, adapters[name]) for name in WRONG),
        _lora("right-tree", adapters[RIGHT], num_steps=TREE_STEPS, topk=3, num_draft_tokens=13),
        {"name": "other", "kind": "standalone", "path": str(folder / "other"), "external": True, "num_steps": 2},
        {"name": "off", "kind": "none"},
    ]
    tasks = [{"id": "sums", "drafter": RIGHT}]
    pool = write_manifest(folder / "pool", drafters, fallback="base", tasks=tasks, merged_draft_tokens=16)
    return Adapted(folder / "target", base, pool, adapters)


@pytest.fixture(scope="package")
def running(adapted: Adapted, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("lora-log") / "hetero.log"
    flags = ("--speculative-algorithm", "HETERO", "--speculative-draft-model-path", str(adapted.pool))
    with running_server(adapted.target, log, *EXACT, *ROOMY, *flags, "--enable-metrics", env=STRICT) as server:
        yield server


@pytest.fixture
def server(running: Server) -> Iterator[Server]:
    # The last answers of whoever asked before may still be on their way out of the scheduler.
    assert_nothing_left(running)
    yield running
    assert_nothing_left(running)
