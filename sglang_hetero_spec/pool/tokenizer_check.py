"""Is the drafter's tokenizer the one that the manifest names, and the target's?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sglang_hetero_spec.pool import vocabulary
from sglang_hetero_spec.pool.checkpoint import vocab_size
from sglang_hetero_spec.pool.errors import PoolError
from sglang_hetero_spec.pool.own_tokenizer import check_belongs
from sglang_hetero_spec.pool.schema import Drafter


@dataclass(frozen=True)
class TargetTokenizer:
    """What is known of the target's tokenizer: its folder, else the hash in the manifest, else nothing.

    without_tokenizer: the target's folder, where that has no tokenizer.json.
    """

    folder: Path | None
    sha256: str | None
    without_tokenizer: Path | None = None

    @classmethod
    def find(cls, sha256: str | None, target: str | Path | None, manifest: Path) -> TargetTokenizer:
        """Looks in `target` if that is a folder, and checks the manifest's hash against it."""
        folder = Path(target) if target is not None and Path(target).is_dir() else None
        if folder is None or not vocabulary.has_tokenizer(folder):
            return cls(None, sha256, folder)
        found = vocabulary.tokenizer_mismatch(folder, sha256) if sha256 else None
        if found is not None:
            raise PoolError(
                f"{manifest}: `target.tokenizer_sha256` is {sha256}, but the tokenizer of the target {folder} has"
                f" {found}; serve the target that the pool was made for, or correct the hash."
            )
        return cls(folder, sha256)


def check_tokenizer(
    folder: Path, config: dict[str, Any], drafter: Drafter, start: str, target: TargetTokenizer
) -> None:
    """PoolError unless the draft model in `folder` has the right tokenizer.

    `start`: "<file>: `drafters[i]".
    """
    if drafter.tokenizer_sha256 is not None:
        _check_hash(folder, drafter.tokenizer_sha256, f"{start}.tokenizer_sha256`")
    if vocabulary.has_tokenizer(folder):
        check_belongs(folder, config)
    if drafter.vocab != "shared":
        return
    if target.folder is not None:
        _check_same(folder, config, f"{start}.vocab`", target.folder)
    elif target.sha256 is not None:
        _check_target_hash(folder, f"{start}.vocab`", target.sha256)


def _check_hash(folder: Path, expected: str, field: str) -> None:
    found = vocabulary.tokenizer_mismatch(folder, expected)
    if found is not None:
        raise PoolError(
            f"{field} is {expected}, but the tokenizer in {folder} has {found}; restore the file, or correct the"
            " hash if the change is wanted."
        )


def _check_target_hash(folder: Path, field: str, expected: str) -> None:
    found = vocabulary.tokenizer_mismatch(folder, expected)
    if found is not None:
        raise PoolError(
            f'{field} is "shared", but the tokenizer in {folder} has the hash {found} and not the target\'s'
            f' {expected}; use a draft model with the target\'s tokenizer, write "auto", or give the target as a folder'
            " to have them compared."
        )


def _check_same(folder: Path, config: dict[str, Any], field: str, target: Path) -> None:
    ours, theirs = vocabulary.read_vocabulary(folder), vocabulary.read_vocabulary(target)
    different = vocabulary.differing_ids(ours, theirs)
    if different:
        first = different[0]
        raise PoolError(
            f'{field} is "shared", but in {folder} {len(different)} of {len(theirs.tokens)} token ids do not'
            f" mean what they do in the target {target} (first {first}: {ours.tokens.get(first)!r}, there"
            f' {theirs.tokens.get(first)!r}); use a draft model with the target\'s tokenizer, or write "auto".'
        )
    size, needed = vocab_size(config), max(theirs.tokens, default=-1) + 1
    if size is not None and size < needed:
        raise PoolError(
            f'{field} is "shared", but {folder / "config.json"} has a `vocab_size` of {size} and the target'
            f' {target} has {needed} tokens; use a draft model with the target\'s vocabulary, or write "auto".'
        )
