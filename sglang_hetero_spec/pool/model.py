"""What a checked pool is to the rest of the program. Paths are absolute; manifest order is drafter index."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sglang_hetero_spec.vocab.overlap import Overlap


@dataclass(frozen=True)
class TargetSpec:
    """The target that the pool was made for; both fields are optional in a manifest."""

    name_or_path: str | None = None
    tokenizer_sha256: str | None = None


@dataclass(frozen=True)
class DrafterSpec:
    """One drafter. A chain has topk 1 and num_steps + 1 draft tokens; kind `none` has 0, 1, 1 and no path.

    vocab: `shared`, `tli`, `slem` (num_steps counts tokens of the drafter, num_draft_tokens target tokens) or `slrs`;
    `auto` only in a pool loaded without the target's folder. overlap: with the target's vocabulary, where that is
    known and another. auto_reason: why this mode, where the manifest says `auto`.
    base: of a `lora`, the name of the drafter that it adapts. capacity: of an `ngram`, tokens that it remembers.
    exits: of a `sorted`, the layers behind which it may leave, ascending; thresholds: for all but the last of them, the
    largest probability of its next token that suffices to leave there.
    """

    name: str
    kind: str
    path: Path | None
    vocab: str
    num_steps: int
    topk: int
    num_draft_tokens: int
    external: bool = False
    weights_sha256: str | None = None
    tokenizer_sha256: str | None = None
    overlap: Overlap | None = None
    auto_reason: str | None = None
    base: str | None = None
    capacity: int | None = None
    exits: tuple[int, ...] = ()
    thresholds: tuple[float, ...] = ()


@dataclass(frozen=True)
class TaskSpec:
    """A group of prompts and the name of the drafter that serves it, of the second one too where it has two."""

    id: str
    name: str
    drafter: str
    second_drafter: str | None = None


@dataclass(frozen=True)
class RouterSpec:
    """Where the prompt classifier lies, and the confidence below which the fallback drafter serves.

    second_below: the confidence below which the drafter of its next guess joins; None: it never does.
    """

    path: Path
    min_confidence: float
    second_below: float | None = None


@dataclass(frozen=True)
class Pool:
    """A pool directory that passed every check that needs no model.

    merged_draft_tokens: nodes of the tree that two drafters' trees for one request are merged into; None where no
    request has two.
    """

    root: Path
    target: TargetSpec
    drafters: tuple[DrafterSpec, ...]
    tasks: tuple[TaskSpec, ...]
    fallback_drafter: str
    router: RouterSpec | None
    merged_draft_tokens: int | None = None

    @property
    def widest(self) -> int:
        """Nodes of the widest tree of a request."""
        return max(self.merged_draft_tokens or 1, *(spec.num_draft_tokens for spec in self.drafters))

    def drafter(self, name: str) -> DrafterSpec:
        """The drafter of that name; KeyError names the known ones."""
        return self.drafters[self.drafter_index(name)]

    def drafter_index(self, name: str) -> int:
        """Position of the drafter in the manifest; KeyError names the known ones."""
        for index, drafter in enumerate(self.drafters):
            if drafter.name == name:
                return index
        raise KeyError(f"no drafter `{name}` in {self.root}: it has {', '.join(d.name for d in self.drafters)}")

    def task(self, task_id: str) -> TaskSpec:
        """The task of that id; KeyError names the known ones."""
        for task in self.tasks:
            if task.id == task_id:
                return task
        raise KeyError(f"no task `{task_id}` in {self.root}: it has {', '.join(t.id for t in self.tasks)}")
