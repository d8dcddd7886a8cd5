"""Which ids of a tokenizer are no text: begin, end, padding, unknown, and other special tokens."""

from __future__ import annotations

import json
from enum import IntEnum
from pathlib import Path
from typing import Any

from sglang_hetero_spec.vocab.errors import VocabError


class Role(IntEnum):
    """NOTHING: an id that the model has and the tokenizer has not."""

    NOTHING = 0
    TEXT = 1
    BOS = 2
    EOS = 3
    PAD = 4
    UNK = 5
    SPECIAL = 6


# A token with several roles (GPT-2's <|endoftext|> has four) has the first of these.
_NAMED = (("eos_token", Role.EOS), ("bos_token", Role.BOS), ("unk_token", Role.UNK), ("pad_token", Role.PAD))


def read_roles(
    folder: Path, added: list[dict[str, Any]], model_unk: int | None, ids: dict[str, int]
) -> dict[int, Role]:
    """Roles of the ids that are no text, the tokenizer's own eos before other ends, in the order of their finding.

    Read from tokenizer.json's added tokens and model, special_tokens_map.json and tokenizer_config.json, and
    `eos_token_id` of generation_config.json and config.json, which may name several. ids: token -> id.
    """
    no_text = {token["id"] for token in added}
    roles: dict[int, Role] = {}
    names = _json(folder, "special_tokens_map.json") | _json(folder, "tokenizer_config.json")
    for name, role in _NAMED:
        token_id = _id_of(names.get(name), ids)
        # What ends the text ends it, also where it is an ordinary token; a pad token may be one only by its name.
        if token_id is not None and (role is Role.EOS or token_id in no_text or token_id == model_unk):
            roles.setdefault(token_id, role)
        if role is Role.EOS:
            for token_id in _configured_eos(folder, set(ids.values())):
                roles.setdefault(token_id, role)
    if model_unk is not None:
        roles.setdefault(model_unk, Role.UNK)
    for token in added:
        if token.get("special"):
            roles.setdefault(token["id"], Role.SPECIAL)
    return roles


def _configured_eos(folder: Path, known: set[int]) -> list[int]:
    found = []
    for file in ("generation_config.json", "config.json"):
        value = _json(folder, file).get("eos_token_id")
        found += value if isinstance(value, list) else [value]
    return [token_id for token_id in found if type(token_id) is int and token_id in known]


def _id_of(token: Any, ids: dict[str, int]) -> int | None:
    """token: a string, or the same with its settings in an object."""
    content = token.get("content") if isinstance(token, dict) else token
    return ids.get(content) if isinstance(content, str) else None


def _json(folder: Path, name: str) -> dict[str, Any]:
    path = folder / name
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise VocabError(f"{path} is not a JSON object; save the tokenizer again with transformers.")
    return value
