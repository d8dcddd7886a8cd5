"""`ngram`: no model; what was written before is proposed again. Its folder, if any, holds a corpus to begin with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sglang_hetero_spec.pool.checkpoint import check_weights_hash, vocab_size
from sglang_hetero_spec.pool.entries.checks import FILE_FIELDS, TREE_FIELDS, Checks, Entry
from sglang_hetero_spec.pool.errors import PoolError, shown
from sglang_hetero_spec.pool.safetensors_file import read_header
from sglang_hetero_spec.pool.schema import Drafter
from sglang_hetero_spec.pool.strict_json import read_object
from sglang_hetero_spec.pool.tokenizer_check import TargetTokenizer
from sglang_hetero_spec.pool.tree_shape import tree_shape
from sglang_hetero_spec.pool.vocabulary import read_vocabulary

FIELDS = (*FILE_FIELDS, *TREE_FIELDS, "capacity")
CORPUS_NAME = "corpus.safetensors"
# Tokens; each takes 36 to 52 bytes of the server's memory, so that is at most 3.5 GB for one drafter.
MIN_CAPACITY, DEFAULT_CAPACITY, MAX_CAPACITY = 1 << 10, 1 << 20, 1 << 26
_REMEDY = "make it again with `hetero-spec ngram-corpus`"


def check(checks: Checks, drafter: Drafter, start: str) -> Entry:
    shape = tree_shape(drafter, start)
    capacity = _capacity(drafter, start)
    if drafter.path is None:
        _check_no_files(drafter, start)
        return Entry(shape, capacity=capacity)
    folder = checks.folder(drafter, start, "the corpus's folder")
    check_corpus(folder, f"{start}.path`", capacity, target_vocab_size(checks.tokenizer))
    check_weights_hash(folder, drafter.weights_sha256, start)
    return Entry(shape, folder, capacity=capacity)


def _capacity(drafter: Drafter, start: str) -> int:
    capacity = DEFAULT_CAPACITY if drafter.capacity is None else drafter.capacity
    if not MIN_CAPACITY <= capacity <= MAX_CAPACITY:
        raise PoolError(
            f"{start}.capacity` is {shown(capacity)}; give a whole number of tokens from {MIN_CAPACITY:,} to"
            f" {MAX_CAPACITY:,}."
        )
    return capacity


def _check_no_files(drafter: Drafter, start: str) -> None:
    for field in ("external", "weights_sha256"):
        value = getattr(drafter, field)
        if value not in (None, False):
            raise PoolError(f"{start}.{field}` is {shown(value)}, but there is no `path`; remove it, or give a corpus.")


def check_corpus(folder: Path, field: str, capacity: int, num_ids: int | None) -> None:
    """PoolError unless the folder has a corpus that fits. field: "<file>: `drafters[i].path`"; num_ids: the target's
    token ids, None where they are not known."""
    path = folder / CORPUS_NAME
    if not path.is_file():
        raise PoolError(f"{field} is {folder}, which has no {CORPUS_NAME}; {_REMEDY}, or leave `path` out.")
    header = _header(path)
    num_tokens, num_texts = _length(path, header, "tokens", "I32"), _length(path, header, "starts", "I64")
    if not num_tokens or not num_texts:
        raise PoolError(f"{path} is an empty corpus; {_REMEDY} from answers, or leave `path` out.")
    if num_tokens + num_texts > capacity:
        raise PoolError(
            f"{path} has {num_tokens:,} tokens in {num_texts:,} texts, more than the drafter's `capacity` of"
            f" {capacity:,}; give a `capacity` of {num_tokens + num_texts:,} or more (at most {MAX_CAPACITY:,}), or a"
            " smaller corpus."
        )
    _check_values(path, header, num_ids)


def corpus_tokens(folder: Path) -> int:
    """Of a corpus that was checked."""
    path = folder / CORPUS_NAME
    return _length(path, _header(path), "tokens", "I32")


def _header(path: Path) -> dict[str, Any]:
    try:
        return read_header(path)
    except PoolError as error:
        if "cannot be read" in str(error):
            raise
        raise PoolError(f"{path} is no corpus but something else, or a part of one; {_REMEDY}.") from None


def _length(path: Path, header: dict[str, Any], name: str, dtype: str) -> int:
    found = header.get(name)
    if found is None or found.get("dtype") != dtype or len(found["shape"]) != 1:
        have = "is missing" if found is None else f"is {found.get('dtype')} of shape {found['shape']}"
        raise PoolError(f"{path}: `{name}` {have}, not a list of {dtype} numbers; {_REMEDY}.")
    return int(found["shape"][0])


def _check_values(path: Path, header: dict[str, Any], num_ids: int | None) -> None:
    import numpy as np

    with path.open("rb") as file:
        data = 8 + int.from_bytes(file.read(8), "little")

    def values(name: str, dtype: str, size: int) -> Any:
        begin, end = header[name]["data_offsets"]
        if end - begin != size * header[name]["shape"][0] or begin < 0:
            raise PoolError(f"{path}: `{name}` is not where its header says; {_REMEDY}.")
        return np.fromfile(path, dtype, header[name]["shape"][0], offset=data + begin)

    starts, tokens = values("starts", "<i8", 8), values("tokens", "<i4", 4)
    if starts[0] != 0 or (starts[1:] <= starts[:-1]).any() or starts[-1] >= len(tokens):
        raise PoolError(f"{path}: `starts` are not the ascending beginnings of its texts; {_REMEDY}.")
    lowest, highest = int(tokens.min()), int(tokens.max())
    if lowest < 0 or (num_ids is not None and highest >= num_ids):
        wrong = lowest if lowest < 0 else highest
        known = "" if num_ids is None else f", and the target has {num_ids:,}"
        raise PoolError(f"{path} holds the token id {wrong}{known}; {_REMEDY}, with this target.")


def target_vocab_size(target: TargetTokenizer) -> int | None:
    """Token ids that the target has, as far as its folder says."""
    folder = target.folder or target.without_tokenizer
    if folder is not None and (folder / "config.json").is_file():
        size = vocab_size(read_object(folder / "config.json"))
        if size is not None:
            return size
    return max(read_vocabulary(target.folder).tokens, default=-1) + 1 if target.folder is not None else None
