"""Drafters whose vocabulary is not, or may not be, the target's: is their mode possible, and which one is `auto`?

Looks at tokenizers only. The vocabularies themselves are compared in `vocab/`, which is imported here, when a pool has
such a drafter, and nowhere else in `pool/`. What needs the target's tokenizer is left open where a pool is loaded
without the target's folder.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sglang_hetero_spec.pool import kinds, vocabulary
from sglang_hetero_spec.pool.checkpoint import vocab_size
from sglang_hetero_spec.pool.digest import file_key
from sglang_hetero_spec.pool.errors import PoolError, shown
from sglang_hetero_spec.pool.own_tokenizer import check_fits
from sglang_hetero_spec.pool.strict_json import read_object

if TYPE_CHECKING:
    from sglang_hetero_spec.pool.tokenizer_check import TargetTokenizer
    from sglang_hetero_spec.vocab.mid_text import MidText
    from sglang_hetero_spec.vocab.overlap import Overlap
    from sglang_hetero_spec.vocab.token_weights import TokenWeights


class Mode(NamedTuple):
    """vocab: the mode, `auto` where that is still open. overlap: with a mode of a vocabulary of its own, where the
    target's is known. reason: why `auto` is this mode."""

    vocab: str
    overlap: Overlap | None = None
    reason: str | None = None


SHARED = Mode("shared")
_ALL_OF_IT = "its vocabulary is the target's"
# By all that a mode depends on: a server loads its pool several times.
_found: dict[tuple[object, ...], Mode] = {}


class Modes:
    """The modes of one pool's drafters. What they need of the target is read once, when the first one asks."""

    def __init__(self, root: Path, target: TargetTokenizer) -> None:
        self._root = root
        self._target = target

    def of(self, vocab: str, folder: Path, config: dict[str, Any], field: str) -> Mode:
        """The mode in which the drafter in `folder` is served.

        vocab: what the manifest says. config: the drafter's config.json. field: "<file>: `drafters[i].vocab`", for
        PoolError.
        """
        if vocab == "shared":
            return SHARED
        check_fits(folder, config)
        target = self._target.folder
        if target is None:
            if self._target.without_tokenizer is not None:
                raise PoolError(
                    f"{field} is {shown(vocab)}, but the target {self._target.without_tokenizer} has no tokenizer.json"
                    " to compare with; save it there with transformers."
                )
            return Mode(vocab)
        if vocab == kinds.AUTO and is_the_targets(folder, config, target):
            return Mode("shared", reason=_ALL_OF_IT)
        key = (vocab, *_keys(folder), *_keys(target), *self._weight_keys())
        if key not in _found:
            _found[key] = self._measured(vocab, folder, config, field)
        return _found[key]

    def _measured(self, vocab: str, folder: Path, config: dict[str, Any], field: str) -> Mode:
        from sglang_hetero_spec.vocab.choose import choose
        from sglang_hetero_spec.vocab.errors import PsiTooLarge, VocabError
        from sglang_hetero_spec.vocab.overlap import describe
        from sglang_hetero_spec.vocab.pairing import pair_sides, read_side
        from sglang_hetero_spec.vocab.psi import check_bound

        try:
            pairing = pair_sides(self._side, read_side(folder, vocab_size(config)))
            if vocab == "slrs":
                check_bound(pairing.draft.table.pieces, pairing.target.table.pieces)
        except (VocabError, PsiTooLarge) as error:
            raise PoolError(f"{field} is {shown(vocab)}, but {error}") from None
        overlap = describe(pairing, self._weights)
        if vocab == kinds.AUTO:
            choice = choose(overlap)
            return Mode(choice.mode, overlap, choice.reason)
        if vocab == "tli" and not overlap.num_shared:
            raise PoolError(
                f'{field} is "tli", but no token of {folder} stands for the same bytes as one of the target'
                f' {self._target.folder}, so that nothing can be proposed; use "slem".'
            )
        return Mode(vocab, overlap)

    @cached_property
    def _side(self) -> MidText:
        from sglang_hetero_spec.vocab.pairing import read_side

        folder = self._target.folder
        assert folder is not None
        config = folder / "config.json"
        return read_side(folder, vocab_size(read_object(config)) if config.is_file() else None)

    @cached_property
    def _weights(self) -> TokenWeights | None:
        from sglang_hetero_spec.vocab.token_weights import pool_weights

        return pool_weights(self._root, self._side)

    def _weight_keys(self) -> tuple[object, ...]:
        from sglang_hetero_spec.vocab.token_weights import ANSWERS, TASKS

        return tuple(file_key(path) for path in (self._root / ANSWERS, self._root / TASKS) if path.is_file())


def is_the_targets(folder: Path, config: dict[str, Any], target: Path) -> bool:
    """Whether the drafter can be served as `shared`: same ids, but for padding, and an embedding for each of them."""
    theirs = vocabulary.read_vocabulary(target)
    if vocabulary.differing_ids(vocabulary.read_vocabulary(folder), theirs):
        return False
    size = vocab_size(config)
    return size is None or size > max(theirs.tokens, default=-1)


def _keys(folder: Path) -> tuple[object, ...]:
    from sglang_hetero_spec.vocab.pairing import TOKENIZER_FILES

    return tuple(file_key(folder / name) for name in TOKENIZER_FILES if (folder / name).is_file())
