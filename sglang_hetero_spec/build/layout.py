"""Where a build keeps things: the pool itself, and beside it, in `.build`, what it was made from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

GENERAL = "general"
BASE = "base"


@dataclass(frozen=True)
class Layout:
    """pool: the folder that the user named. Every stage has a folder of its own below `work`."""

    pool: Path

    @property
    def work(self) -> Path:
        return self.pool / ".build"

    def stage(self, name: str) -> Path:
        return self.work / name

    @property
    def partition(self) -> Path:
        return self.stage("partition")

    @property
    def answers(self) -> Path:
        return self.stage("regenerate") / "answers.jsonl"

    @property
    def split(self) -> Path:
        """train.jsonl and heldout.jsonl (answers), prompts.jsonl (of the held-out ones)."""
        return self.stage("split")

    def drafter(self, name: str) -> Path:
        return self.work / "drafters" / name

    def corpus(self, name: str) -> Path:
        return self.stage("corpora") / name

    @property
    def base(self) -> Path:
        """The drafter that the others go on from, where the build makes one."""
        return self.stage(BASE) / BASE

    @property
    def cache(self) -> Path:
        """What is kept of the target while drafters are aligned."""
        return self.stage("cache")

    @property
    def profile(self) -> Path:
        return self.stage("profile") / "profile.jsonl"

    @property
    def merged(self) -> Path:
        """tasks.json, prompts.jsonl, profile.jsonl and held-out prompts, once tasks are merged."""
        return self.stage("merge")

    @property
    def assignment(self) -> Path:
        return self.stage("assign") / "assignment.json"

    @property
    def router(self) -> Path:
        return self.stage("router")
