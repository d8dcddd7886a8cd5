"""A tiny pool with everything that a request can meet: chains, a tree, `none`, tasks, and a router that is fitted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sglang_hetero_spec.router.fit import fit_router
from tests.support.manifest import write_manifest
from tests.support.tiny_models import TinyShape, write_noisy_copy, write_tiny_model

# name -> (num_steps, topk, num_draft_tokens); `same` is the target itself.
SHAPES = {"same": (3, 1, 4), "near": (3, 2, 6), "small": (2, 1, 3)}
DRAFTERS = (*SHAPES, "off")
FALLBACK = "near"
TASKS = {"sums": "same", "code": "near", "letters": "small", "quiet": "off"}
CONTEXT = 512

_TEMPLATES = {
    "sums": "Tom has {n} apples and buys {m} more. How many apples does Tom have now?",
    "code": "def f{n}(x):\n    for i in range({m}):\n        return x + {n}",
    "letters": "Dear Mrs. Miller number {n}, thank you for your kind letter of May {m}.",
    "quiet": "SELECT name FROM table_{n} WHERE year > 19{m} ORDER BY year;",
}


@dataclass(frozen=True)
class RoutedPool:
    target: Path
    pool: Path

    @property
    def args(self) -> tuple[str, ...]:
        return ("--speculative-algorithm", "HETERO", "--speculative-draft-model-path", str(self.pool))


def num_proposed_per_step(drafter: str) -> int:
    return SHAPES[drafter][2] - 1 if drafter in SHAPES else 0


def prompt_of(task: str, number: int = 1) -> str:
    """A prompt that the router is sure of, and was not fitted on for numbers below 100."""
    return _TEMPLATES[task].format(n=number, m=number % 37 + 10)


def write_routed_pool(folder: Path, *, router: bool = True) -> RoutedPool:
    """Target and pool below `folder`, a few seconds."""
    target = write_tiny_model(folder / "target", seed=1, shape=TinyShape(max_len=CONTEXT))
    write_noisy_copy(target, folder / "same", seed=1, noise=0.0)
    write_noisy_copy(target, folder / "near", seed=2, noise=0.1)
    write_tiny_model(folder / "small", seed=3, shape=TinyShape(hidden=32, layers=1, max_len=CONTEXT))
    drafters = [
        {"name": name, "kind": "standalone", "path": str(folder / name), "external": True, "vocab": "shared",
         "num_steps": steps, "topk": topk, "num_draft_tokens": tokens}
        for name, (steps, topk, tokens) in SHAPES.items()
    ]  # fmt: skip
    drafters.append({"name": "off", "kind": "none"})
    tasks = [{"id": task, "name": task, "drafter": drafter} for task, drafter in TASKS.items()]
    extra = {"router": {"path": "router", "min_confidence": 0.5}} if router else {}
    pool = write_manifest(folder / "pool", drafters, fallback=FALLBACK, tasks=tasks, **extra)
    if router:
        examples = [(prompt_of(task, number), task) for task in TASKS for number in range(100, 140)]
        fit_router([prompt for prompt, _ in examples], [task for _, task in examples]).save(pool / "router")
    return RoutedPool(target, pool)
