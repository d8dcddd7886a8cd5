"""Does the tokenizer.json in a checkpoint's folder belong to that checkpoint? Told from the files beside it.

What is compared was written together with the model: config.json and tokenizer_config.json. A foreign tokenizer of the
same size with the same special tokens is refused by `tokenizer_sha256` alone, and without that warned of when a worker
starts (drafters/tokenizer_fit.py); it costs accepted tokens, never a wrong output.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sglang_hetero_spec.pool import vocabulary
from sglang_hetero_spec.pool.checkpoint import vocab_size
from sglang_hetero_spec.pool.errors import PoolError, shown

_REMEDY = "it is the tokenizer of another model; put the one that the model was trained with there."


def check_belongs(folder: Path, config: dict[str, Any]) -> None:
    """PoolError where tokenizer.json cannot be that of the model. config: the folder's config.json."""
    tokens = vocabulary.read_vocabulary(folder).tokens
    _check_ends(folder, config, tokens)
    settings = _settings(folder / "tokenizer_config.json")
    named = _added(settings)
    for token_id, token in sorted(named.items()):
        if token_id in tokens and tokens[token_id] != token:
            raise PoolError(
                f"{folder / 'tokenizer.json'} has {shown(tokens[token_id])} as token {token_id}, which"
                f" tokenizer_config.json calls {shown(token)}: {_REMEDY}"
            )
    # Other special tokens may be missing: transformers adds them when it loads the tokenizer.
    end = _content(settings.get("eos_token"))
    if end and end not in tokens.values() and end not in named.values():
        raise PoolError(
            f"{folder / 'tokenizer.json'} has no token {shown(end)}, the `eos_token` of tokenizer_config.json:"
            f" {_REMEDY}"
        )


def check_fits(folder: Path, config: dict[str, Any]) -> None:
    """PoolError where the tokenizer has ids for which the model has no embedding; fewer ids are padding."""
    last, size = max(vocabulary.read_vocabulary(folder).tokens, default=-1), vocab_size(config)
    if size is not None and last >= size:
        raise PoolError(
            f"{folder / 'tokenizer.json'} has the token id {last}, and {folder / 'config.json'} has a `vocab_size` of"
            f" {size}: {_REMEDY}"
        )


def _check_ends(folder: Path, config: dict[str, Any], tokens: dict[int, str]) -> None:
    """The model's end of text must be a token; one beyond its embedding is a default that nobody set."""
    value, size = config.get("eos_token_id"), vocab_size(config)
    ends = [token_id for token_id in (value if isinstance(value, list) else [value]) if type(token_id) is int]
    usable = [token_id for token_id in ends if token_id >= 0 and (size is None or token_id < size)]
    if usable and not any(token_id in tokens for token_id in usable):
        raise PoolError(
            f"{folder / 'config.json'} ends a text with token {usable[0]}, which {folder / 'tokenizer.json'} has not:"
            f" {_REMEDY}"
        )


def _added(settings: dict[str, Any]) -> dict[int, str]:
    entries = settings.get("added_tokens_decoder")
    if not isinstance(entries, dict):
        return {}
    found = {token_id: _content(entry) for token_id, entry in entries.items() if token_id.isdecimal()}
    return {int(token_id): token for token_id, token in found.items() if token is not None}


def _content(token: Any) -> str | None:
    """A token is a string, or the same with its settings in an object."""
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) else None


def _settings(path: Path) -> dict[str, Any]:
    """Nothing where there is no such file, or none that can be read: another check's business."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
