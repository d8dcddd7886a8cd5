"""The pool of the engine tests: the demo's drafters in many shapes, or tiny random models where there is no demo."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import sglang_hetero_spec
from tests.support.manifest import write_manifest

ASSETS = Path(sglang_hetero_spec.__file__).parent / "demo" / "assets"

CHAINS = ("chain-1", "chain-3", "chain-6")
TREES = ("tree-2", "tree-3", "tree-4")
# The target as its own drafter. The tree holds every node it can have, so that its likeliest path is always in it.
SELF_STEPS = {"self-chain": 4, "self-tree": 2}
SELF = tuple(SELF_STEPS)
BRIEF = "brief"  # made for BRIEF_CONTEXT tokens only
BRIEF_CONTEXT = 96
COPIES = ("copies-tree", "copies-chain")  # of kind ngram
# The target as a sorted drafter that was not trained for it: leaves early now and then, never, and always.
SORTED = {"sorted-some": (0.8, 0.9), "sorted-whole": (1.0, 1.0), "sorted-first": ()}
SORTED_STEPS = 4
EVERYONE = (*CHAINS, "none", *TREES, *COPIES)
# Drafters with a vocabulary of their own, by name: model of tests/models, vocab, shape.
FOREIGN_MODELS = Path(__file__).parents[1] / "models"
FOREIGN_SHAPES = {
    "tli-bpe": ("bpe", "tli", {"num_steps": 4}),
    "tli-tree": ("bpe", "tli", {"num_steps": 3, "topk": 2, "num_draft_tokens": 8}),
    "tli-sentencepiece": ("sentencepiece", "tli", {"num_steps": 4}),
    "slem-bpe": ("bpe", "slem", {"num_steps": 4}),
    "slem-sentencepiece": ("sentencepiece", "slem", {"num_steps": 6, "num_draft_tokens": 9}),
    "slem-bytes": ("bytes", "slem", {"num_steps": 12, "num_draft_tokens": 6}),
}
FOREIGN = tuple(FOREIGN_SHAPES)
SLRS = "slrs-bytes"  # takes some tenths of a second for a token


@dataclass(frozen=True)
class Models:
    """target and drafter checkpoints, the one that knows every task first; heldout: prompts, one JSON object with
    "prompt" and "task" a line."""

    target: Path
    drafters: tuple[Path, ...]
    heldout: Path


def demo_models() -> Models | None:
    target, heldout = ASSETS / "target", ASSETS / "heldout.jsonl"
    paths = {path.parent.name: path.parent for path in (ASSETS / "pool" / "drafters").glob("*/config.json")}
    drafters = tuple(paths[name] for name in sorted(paths, key=lambda name: (name != "general", name)))
    if not drafters or not heldout.is_file() or not (target / "config.json").is_file():
        return None
    return Models(target, drafters, heldout)


def tiny_models(folder: Path) -> Models:
    """Random weights; one drafter is nearly the target, one half, one is a stranger."""
    from tests.support.tiny_models import write_noisy_copy, write_tiny_model  # imports torch and transformers

    target = write_tiny_model(folder / "target", seed=1)
    near = write_noisy_copy(target, folder / "near", seed=2, noise=0.02)
    half = write_noisy_copy(target, folder / "half", seed=3, noise=0.1)
    stranger = write_tiny_model(folder / "stranger", seed=4)
    heldout = folder / "heldout.jsonl"
    rows = [{"prompt": f"{task} {number}: " * 3, "task": task} for number in range(60) for task in ("red", "blue")]
    heldout.write_text("\n".join(json.dumps(row) for row in rows))
    return Models(target, (near, half, stranger), heldout)


def write_pool(folder: Path, models: Models) -> Path:
    """pool.json with external drafters; the fallback is chain-3."""
    best, *others = models.drafters
    brief = _copy_with_context(best, folder / "brief-model", BRIEF_CONTEXT)
    drafters = [
        _chain("chain-1", others[0], 1),
        _chain("chain-3", best, 3),
        _chain("chain-6", others[1 % len(others)], 6),
        _tree("tree-2", others[-1], num_steps=3, topk=2, num_draft_tokens=6),
        _tree("tree-3", others[2 % len(others)], num_steps=2, topk=3, num_draft_tokens=9),
        _tree("tree-4", best, num_steps=4, topk=4, num_draft_tokens=12),
        _chain("self-chain", models.target, SELF_STEPS["self-chain"]),
        _tree("self-tree", models.target, num_steps=SELF_STEPS["self-tree"], topk=3, num_draft_tokens=13),
        _chain(BRIEF, brief, 4),
        {"name": "none", "kind": "none"},
        {"name": COPIES[0], "kind": "ngram", "num_steps": 8, "topk": 4, "num_draft_tokens": 12},
        {"name": COPIES[1], "kind": "ngram", "num_steps": 5, "topk": 1, "capacity": 4096},
        *(_sorted(name, models.target, thresholds) for name, thresholds in SORTED.items()),
        *_foreign_drafters(models),
    ]
    return write_manifest(folder / "pool", drafters, fallback="chain-3", merged_draft_tokens=20)


def _foreign_drafters(models: Models) -> list[dict]:
    """None for targets without a tokenizer."""
    if not (models.target / "tokenizer.json").is_file():
        return []
    shapes = {**FOREIGN_SHAPES, SLRS: ("bytes", "slrs", {"num_steps": 2})}
    return [
        _tree(name, FOREIGN_MODELS / model, **shape) | {"vocab": vocab}
        for name, (model, vocab, shape) in shapes.items()
    ]


def _chain(name: str, path: Path, num_steps: int) -> dict:
    return _tree(name, path, num_steps=num_steps, topk=1, num_draft_tokens=num_steps + 1)


def _tree(name: str, path: Path, **shape: int) -> dict:
    return {"name": name, "kind": "standalone", "path": str(path), "external": True, "vocab": "shared", **shape}


def _sorted(name: str, path: Path, thresholds: tuple[float, ...]) -> dict:
    """Exits behind the first layer, the middle ones, and the last."""
    layers = json.loads((path / "config.json").read_text())["num_hidden_layers"]
    exits = sorted({1, max(1, layers // 2), layers})[: len(thresholds) + 1]
    shape = {"num_steps": SORTED_STEPS, "exits": exits, "thresholds": thresholds[: len(exits) - 1]}
    return {"name": name, "kind": "sorted", "path": str(path), "external": True, **shape}


def _copy_with_context(source: Path, path: Path, num_tokens: int) -> Path:
    shutil.copytree(source, path)
    config = json.loads((path / "config.json").read_text())
    config["max_position_embeddings"] = num_tokens
    (path / "config.json").write_text(json.dumps(config))
    return path
