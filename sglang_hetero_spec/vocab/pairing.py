"""A drafter's tokenizer and the target's, and what they share: all that TLI, SLEM and SLRS need to know beforehand."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakValueDictionary

from sglang_hetero_spec.pool import vocabulary
from sglang_hetero_spec.pool.digest import file_key
from sglang_hetero_spec.pool.errors import PoolError
from sglang_hetero_spec.vocab.errors import VocabError
from sglang_hetero_spec.vocab.intersection import Intersection, intersect
from sglang_hetero_spec.vocab.intersection_cache import cached_intersection
from sglang_hetero_spec.vocab.mid_text import MidText
from sglang_hetero_spec.vocab.token_bytes import read_token_bytes

CACHE_VARIABLE = "HETERO_SPEC_CACHE"
# All that a tokenizer's tables are made from.
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "generation_config.json", "config.json",
)  # fmt: skip
# More ids than any model has: a tokenizer with larger ones would only take the memory.
_MAX_IDS = 1 << 24

_in_use: WeakValueDictionary[tuple[object, ...], MidText] = WeakValueDictionary()


@dataclass(frozen=True)
class Pairing:
    """Both tokenizers in the middle of a text, and the tokens that they share."""

    target: MidText
    draft: MidText
    shared: Intersection


def pair(
    target_folder: Path,
    draft_folder: Path,
    *,
    target_vocab_size: int | None = None,
    draft_vocab_size: int | None = None,
    cache: Path | None = None,
) -> Pairing:
    """Reads both tokenizer.json; VocabError in one sentence.

    *_vocab_size: rows of the model's embedding, where known: no tokenizer may have more ids. cache: where the
    intersection is kept (default `cache_folder`); a disk that refuses costs the time to make it again.
    """
    target = read_side(target_folder, target_vocab_size)
    return pair_sides(target, read_side(draft_folder, draft_vocab_size), cache)


def pair_sides(target: MidText, draft: MidText, cache: Path | None = None) -> Pairing:
    """The same of tokenizers already read: the target's is read once for many drafters."""
    folder = cache or cache_folder()
    shared = intersect(target, draft) if folder is None else cached_intersection(target, draft, folder)
    return Pairing(target, draft, shared)


def read_side(folder: Path, vocab_size: int | None = None) -> MidText:
    """One tokenizer; VocabError where it does not fit a model of `vocab_size` ids, or is damaged.

    The same object while somebody has it: the target of many drafters is read, and held, once.
    """
    files = (folder / name for name in TOKENIZER_FILES)
    key = (folder, vocab_size, *(file_key(file) for file in files if file.is_file()))
    side = _in_use.get(key)
    if side is None:
        side = _in_use[key] = _read(folder, vocab_size)
    return side


def _read(folder: Path, vocab_size: int | None) -> MidText:
    file = folder / "tokenizer.json"
    try:
        last = max(vocabulary.read_vocabulary(folder).tokens, default=-1)
        size = _MAX_IDS if vocab_size is None else vocab_size
        if last >= size:
            raise VocabError(
                f"{file} has the token id {last}, and the model has {size} ids at most: it is the tokenizer of another"
                " model; put the one that the model was trained with there."
            )
        return MidText(read_token_bytes(folder, vocab_size))
    except PoolError as error:
        raise VocabError(str(error)) from None
    except (KeyError, TypeError, IndexError, AttributeError, RecursionError, UnicodeError) as error:
        raise VocabError(
            f"{file} is not a tokenizer of the `tokenizers` library ({type(error).__name__}); save it again with"
            " transformers."
        ) from None


def cache_folder() -> Path | None:
    """$HETERO_SPEC_CACHE, else `hetero-spec` in the user's cache folder; None for a user without a home."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "hetero-spec"
    except RuntimeError:
        return None
