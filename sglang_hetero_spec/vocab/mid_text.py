"""Tokenisation of bytes as they stand in the middle of a text.

The tokenizer is the one of the folder without what belongs to the start of a text or changes it: no bos, no prefix
space, no normaliser but one that writes a string for another (SentencePiece's U+2581 for a space). Special tokens are
never read from text.
"""

from __future__ import annotations

import json
import re
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from sglang_hetero_spec.vocab.alphabet import to_alphabet
from sglang_hetero_spec.vocab.roles import Role
from sglang_hetero_spec.vocab.token_bytes import TokenBytes

# How Python's surrogateescape writes bytes that are no UTF-8.
_INVALID = "\udc80-\udcff"
# SentencePiece's sign for a space; a text that has it really can only say it in bytes.
_METASPACE = "\u2581"


class MidText:
    """bytes -> ids of one tokenizer. splits: whether its pre-tokenizer cuts by a pattern, and not only at spaces."""

    def __init__(self, table: TokenBytes) -> None:
        self.table = table
        self._tokenizer, self.splits = _load(table.folder)
        self._unk = table.first(Role.UNK)
        is_sign = not table.byte_level and _METASPACE.encode() not in table.ids_by_bytes
        self._as_bytes = re.compile(f"([{_INVALID}{_METASPACE if is_sign else ''}]+)")
        self._specials = table.names.keys() - {self._unk}
        names = (table.names[token_id] for token_id in self._specials)
        cuts = (f"(?<={re.escape(name[0])})(?={re.escape(name[1:])})" for name in names if len(name) > 1)
        self._inside_names = re.compile("|".join(cuts) or "(?!)")
        self._byte_ids = [table.ids_by_bytes.get(bytes([byte]), (None,))[0] for byte in range(256)]

    @cached_property
    def begin(self) -> tuple[int, ...]:
        """What the tokenizer puts in front of a prompt: its bos, or nothing."""
        ids = self._tokenizer.encode("", add_special_tokens=True).ids
        return tuple(token_id for token_id in ids[:1] if self.table.roles[token_id] == Role.BOS)

    def encode(self, data: bytes) -> list[int]:
        """Ids whose bytes are `data`; what the vocabulary cannot say is its unknown token, or left out.

        Bytes that are no UTF-8 are encoded by themselves. Never raises.
        """
        ids: list[int] = []
        for i, part in enumerate(self._as_bytes.split(data.decode("utf-8", "surrogateescape"))):
            if part:
                ids += self._byte_tokens(part) if i % 2 else self._valid(part)
        return ids

    def spell(self, data: bytes) -> list[int]:
        """The same, up to where the ids say something else than `data`."""
        ids = self.encode(data)
        at = 0
        for i, token_id in enumerate(ids):
            piece = self.table.piece(token_id)
            if not piece or not data.startswith(piece, at):
                return ids[:i]
            at += len(piece)
        return ids

    def canonical(self, data: bytes) -> int | None:
        """Of the ids that stand for these bytes the one that the tokenizer itself writes, else the lowest."""
        ids = self.table.ids_by_bytes.get(data, ())
        if len(ids) > 1:
            own = self.encode(data)
            if len(own) == 1 and own[0] in ids:
                return own[0]
        return ids[0] if ids else None

    def _valid(self, text: str) -> list[int]:
        ids = self._by_library(text)
        if self._specials.isdisjoint(ids):
            return ids
        # Unigram has its special tokens among its pieces: cut their names in two.
        return [token_id for part in self._inside_names.split(text) for token_id in self._by_library(part)]

    def _by_library(self, text: str) -> list[int]:
        try:
            return self._tokenizer.encode(text, add_special_tokens=False).ids
        except Exception:  # the library's own class is Exception; a model without unknown token raises it
            return []

    def _byte_tokens(self, escaped: str) -> list[int]:
        data = escaped.encode("utf-8", "surrogateescape")
        if self.table.byte_level:
            try:
                return [token.id for token in self._tokenizer.model.tokenize(to_alphabet(data))]
            except Exception:  # as above
                return []
        ids = (self._byte_ids[byte] for byte in data)
        return [found for token_id in ids if (found := self._unk if token_id is None else token_id) is not None]


def _load(folder: Path) -> tuple[Tokenizer, bool]:
    parsed = _mid_text(json.loads((folder / "tokenizer.json").read_text(encoding="utf-8")))
    tokenizer = Tokenizer.from_str(json.dumps(parsed))
    tokenizer.encode_special_tokens = True
    return tokenizer, _splits(parsed)


def _mid_text(parsed: dict[str, Any]) -> dict[str, Any]:
    parsed["truncation"] = parsed["padding"] = None
    if "dropout" in parsed["model"]:
        parsed["model"]["dropout"] = None
    kept = [part for part in _flat(parsed.get("normalizer"), "normalizers") if _only_respells(part)]
    parsed["normalizer"] = {"type": "Sequence", "normalizers": kept} if kept else None
    parts = _flat(parsed.get("pre_tokenizer"), "pretokenizers")
    if any(part["type"] == "Metaspace" for part in parts):
        # It loses the spaces, which Metaspace then puts before every word, the first one too.
        parts = [part for part in parts if part["type"] not in ("WhitespaceSplit", "Whitespace")]
    parsed["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": parts} if parts else None
    for part in parts:
        if part["type"] == "Metaspace":
            part["prepend_scheme"] = "never"
            part.pop("add_prefix_space", None)
        elif part["type"] == "ByteLevel":
            part["add_prefix_space"] = False
    for token in parsed.get("added_tokens") or []:
        token["lstrip"] = token["rstrip"] = token["single_word"] = False
    return parsed


def _splits(parsed: dict[str, Any]) -> bool:
    parts = _flat(parsed["pre_tokenizer"], "pretokenizers")
    return any(part["type"] != "Metaspace" and part.get("use_regex", True) for part in parts)


def _flat(part: dict[str, Any] | None, inner: str) -> list[dict[str, Any]]:
    """The parts of a sequence, themselves and not copies."""
    if part is None:
        return []
    return [leaf for each in part[inner] for leaf in _flat(each, inner)] if part["type"] == "Sequence" else [part]


def _only_respells(part: dict[str, Any]) -> bool:
    return part["type"] == "ByteLevel" or (part["type"] == "Replace" and "String" in part["pattern"])
