"""What the entries of all kinds are checked with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from sglang_hetero_spec.pool import paths
from sglang_hetero_spec.pool.errors import PoolError, listed, shown
from sglang_hetero_spec.pool.foreign import SHARED, Mode, Modes
from sglang_hetero_spec.pool.schema import Drafter, Manifest
from sglang_hetero_spec.pool.tokenizer_check import TargetTokenizer
from sglang_hetero_spec.pool.tree_shape import TreeShape

TREE_FIELDS = ("num_steps", "topk", "num_draft_tokens")
FILE_FIELDS = ("path", "external", "weights_sha256")


@dataclass(frozen=True)
class Checks:
    """What each drafter is checked against. where: the manifest's file."""

    root: Path
    where: Path
    manifest: Manifest
    tokenizer: TargetTokenizer
    modes: Modes

    def folder(self, drafter: Drafter, start: str, what: str) -> Path:
        """The folder of drafter.path. start: "<file>: `drafters[i]"; what: should lie there, for PoolError."""
        field = f"{start}.path`"
        if drafter.path is None:
            raise PoolError(f"{field} is missing; give {what}, relative to the pool.")
        folder = paths.resolve(self.root, drafter.path, field, drafter.external)
        if not drafter.external:
            paths.check_links(self.root, folder, field)
        return folder

    def named(self, name: str) -> Drafter | None:
        """The entry of that name."""
        return next((drafter for drafter in self.manifest.drafters if drafter.name == name), None)


class Entry(NamedTuple):
    """What the check of a kind found; as in DrafterSpec."""

    shape: TreeShape
    path: Path | None = None
    mode: Mode = SHARED
    base: str | None = None
    capacity: int | None = None
    exits: tuple[int, ...] = ()
    thresholds: tuple[float, ...] = ()


def refuse_other_fields(drafter: Drafter, start: str, known: tuple[str, ...]) -> None:
    """PoolError for a key that belongs to another kind."""
    for field, info in Drafter.model_fields.items():
        value = getattr(drafter, field)
        if field not in ("name", "kind", *known) and value != info.default:
            raise PoolError(
                f"{start}.{field}` is {shown(value)}, but kind `{drafter.kind}` has no such key; remove it"
                f" (it has {listed(known)})."
            )
