"""Tokenizers compared by what a drafter depends on: which id is which token."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sglang_hetero_spec.pool.digest import file_key, file_sha256
from sglang_hetero_spec.pool.errors import PoolError
from sglang_hetero_spec.pool.strict_json import read_text

# The largest tokenizer.json files of today have about 35 MB.
MAX_TOKENIZER_BYTES = 512 << 20


@dataclass(frozen=True)
class Vocabulary:
    """`base`: id -> token of the tokenizer's model; `added`: id -> token of what was added to it."""

    base: dict[int, str]
    added: dict[int, str]

    @property
    def tokens(self) -> dict[int, str]:
        return {**self.base, **self.added}


_cache: dict[tuple[str, int, int], Vocabulary] = {}


def has_tokenizer(folder: Path) -> bool:
    """Whether `read_vocabulary` has a file to read."""
    return (folder / "tokenizer.json").is_file()


def read_vocabulary(folder: Path) -> Vocabulary:
    """The vocabulary in `folder`/tokenizer.json, the format of the `tokenizers` library."""
    path = _file(folder)
    key = file_key(path)
    if key not in _cache:
        _cache[key] = _parse(path)
    return _cache[key]


def tokenizer_sha256(folder: Path) -> str:
    """Hex SHA-256 of the id -> token map, as `write_pool_manifest` gives it: the same for any layout of the file.

    Hashed is the UTF-8 of the compact JSON list [[id, token], ...], sorted by id, non-ASCII escaped.
    """
    pairs = sorted(read_vocabulary(folder).tokens.items())
    return hashlib.sha256(json.dumps(pairs, separators=(",", ":")).encode()).hexdigest()


def tokenizer_mismatch(folder: Path, expected: str) -> str | None:
    """None if `expected` is a hash of the tokenizer in `folder`, else the hashes that it has, for a sentence.

    A manifest may give the hash of tokenizer.json as `sha256sum` prints it, or `tokenizer_sha256`.
    """
    of_file = file_sha256(_file(folder))
    if expected == of_file:
        return None
    of_tokens = tokenizer_sha256(folder)
    return None if expected == of_tokens else f"{of_file} (its id-to-token map: {of_tokens})"


def differing_ids(one: Vocabulary, other: Vocabulary) -> list[int]:
    """Ids that do not mean the same token in both, lowest first.

    An id that one side has as an added token and the other side not at all is padding there: no difference.
    """
    ours, theirs = one.tokens, other.tokens
    different = []
    for token_id in ours.keys() | theirs.keys():
        if ours.get(token_id) == theirs.get(token_id):
            continue
        padding = (token_id not in theirs and token_id in one.added) or (
            token_id not in ours and token_id in other.added
        )
        if not padding:
            different.append(token_id)
    return sorted(different)


def _file(folder: Path) -> Path:
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise PoolError(f"{path} is missing; put the tokenizer that the model was trained with there.")
    return path


def _parse(path: Path) -> Vocabulary:
    text = read_text(path, MAX_TOKENIZER_BYTES)
    try:
        parsed = json.loads(text)
        return Vocabulary(_base(parsed["model"]["vocab"]), _added(parsed.get("added_tokens") or []))
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, RecursionError):
        raise PoolError(
            f"{path} is not a tokenizer of the `tokenizers` library; save it again with transformers."
        ) from None


def _base(vocab: Any) -> dict[int, str]:
    if isinstance(vocab, dict):  # BPE, WordPiece, WordLevel
        return {_whole(token_id): token for token, token_id in vocab.items()}
    return {token_id: str(entry[0]) for token_id, entry in enumerate(vocab)}  # Unigram: [token, score]


def _added(tokens: list[dict[str, Any]]) -> dict[int, str]:
    return {_whole(token["id"]): str(token["content"]) for token in tokens}


def _whole(value: object) -> int:
    if type(value) is not int:
        raise TypeError
    return value
