"""The files of the demo that ship with the package: target, pool, held-out prompts; a smaller target with its pool."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sglang_hetero_spec.commands.output import UsageError
from sglang_hetero_spec.demo.errors import DemoError

ASSETS = Path(__file__).resolve().parent / "assets"
_NEEDED = (
    *("target/config.json", "target/model.safetensors", "pool/pool.json", "heldout.jsonl"),
    *("small/target/config.json", "small/target/model.safetensors", "small/pool/pool.json"),
)
# Some of the second pool's drafters lie in the first: copies keep where they are to each other.
_EXPORTED = ("target", "pool", "small/target", "small/pool")


@dataclass(frozen=True)
class Prompt:
    text: str
    task: str


@dataclass(frozen=True)
class Shipped:
    root: Path

    @property
    def target(self) -> Path:
        return self.root / "target"

    @property
    def pool(self) -> Path:
        return self.root / "pool"

    @property
    def small_target(self) -> Path:
        return self.root / "small" / "target"

    @property
    def small_pool(self) -> Path:
        return self.root / "small" / "pool"

    def prompts(self) -> list[Prompt]:
        lines = (self.root / "heldout.jsonl").read_text(encoding="utf-8").splitlines()
        return [Prompt(item["prompt"], item["task"]) for item in map(json.loads, lines)]


def find_shipped(root: Path | None = None) -> Shipped:
    """DemoError where a file is missing: an installation without its data, or a clone before they were made."""
    root = root or ASSETS
    for name in _NEEDED:
        if not (root / name).is_file():
            raise DemoError(
                f"The demo's models are not complete ({root / name} is missing); install the package again, or"
                f" make them again with `python -m sglang_hetero_spec.demo.make --out {root}`."
            )
    return Shipped(root)


def export(shipped: Shipped, out: Path) -> Shipped:
    """Copies both targets and both pools to `out`, where none of them may be. UsageError, in one sentence, where that
    fails."""
    for name in _EXPORTED:
        if (out / name).exists():
            raise UsageError(f"--export {out}: {out / name} exists already; name another folder, or remove it.")
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name in _EXPORTED:
            shutil.copytree(shipped.root / name, out / name, copy_function=shutil.copyfile)
    except OSError as error:
        raise UsageError(
            f"--export {out}: cannot be written ({error.strerror or error}); name a folder that can."
        ) from None
    return Shipped(out)


def interleave(prompts: Sequence[Prompt], number: int) -> tuple[list[Prompt], list[Prompt]]:
    """`number` prompts, one of each task in turn, and one more of each task (if there is one) to warm up with."""
    by_task: dict[str, list[Prompt]] = {}
    for prompt in prompts:
        by_task.setdefault(prompt.task, []).append(prompt)
    longest = max(len(group) for group in by_task.values())
    in_turn = [group[i] for i in range(longest) for group in by_task.values() if i < len(group)]
    warm_up = [group[-1] for group in by_task.values()]
    rest = [prompt for prompt in in_turn if all(prompt is not taken for taken in warm_up)]
    if number > len(rest):
        raise UsageError(
            f"--num-prompts {number} is more than the demo has ({len(rest)} held-out prompts); ask for fewer."
        )
    return rest[:number], warm_up
