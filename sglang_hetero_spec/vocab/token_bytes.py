"""What each id of a tokenizer stands for in the middle of a text: bytes, a role, or nothing."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from sglang_hetero_spec.pool import vocabulary
from sglang_hetero_spec.pool.digest import file_sha256
from sglang_hetero_spec.vocab.decoder_rule import DecoderRule, read_rule
from sglang_hetero_spec.vocab.errors import VocabError
from sglang_hetero_spec.vocab.roles import Role, read_roles

_CHECKED_AT_ONCE = 61


@dataclass(frozen=True)
class TokenBytes:
    """One tokenizer, V ids (those of the model, which may be more than the tokenizer's).

    pieces: V entries, bytes of an id that is text, else None. roles: int8 [V], `Role`. names: the spelling of ids that
    are no text. eos: ids that end a text, the tokenizer's own first. added: ids of added tokens.
    at_start: the ids whose bytes are others when they come first in a text. strip_start: how many leading spaces the
    decoder takes from a text. byte_level: GPT-2's alphabet.
    """

    folder: Path
    pieces: tuple[bytes | None, ...]
    roles: np.ndarray
    names: dict[int, str]
    eos: tuple[int, ...]
    added: frozenset[int]
    at_start: dict[int, bytes]
    strip_start: int
    byte_level: bool

    def __len__(self) -> int:
        return len(self.pieces)

    @cached_property
    def ids_by_bytes(self) -> dict[bytes, tuple[int, ...]]:
        """Ids that are text, ascending, by their bytes; an id without any bytes is left out."""
        found: dict[bytes, list[int]] = {}
        for token_id, piece in enumerate(self.pieces):
            if piece:
                found.setdefault(piece, []).append(token_id)
        return {piece: tuple(ids) for piece, ids in found.items()}

    @cached_property
    def fingerprint(self) -> tuple[str, ...]:
        """All that tables made of this tokenizer depend on."""
        roles = self.roles.tobytes().hex()
        id_map, file = vocabulary.tokenizer_sha256(self.folder), file_sha256(self.folder / "tokenizer.json")
        return id_map, file, roles, repr(self.eos)

    def first(self, role: Role) -> int | None:
        """The id with this role: the tokenizer's own eos, else the lowest."""
        if role is Role.EOS:
            return self.eos[0] if self.eos else None
        found = np.flatnonzero(self.roles == role)
        return int(found[0]) if len(found) else None

    def piece(self, token_id: int) -> bytes | None:
        """Bytes of an id; None where it is no text, or no id at all."""
        return self.pieces[token_id] if 0 <= token_id < len(self.pieces) else None

    def in_the_middle(self, ids: Iterable[int]) -> bytes:
        """The bytes that these ids add to a text; ids that are no text add none."""
        return b"".join(self.piece(token_id) or b"" for token_id in ids)

    def from_start(self, ids: Sequence[int]) -> bytes:
        """The bytes of a text that begins with these ids: what the tokenizer's decode shows without special tokens."""
        text = [token_id for token_id in ids if self.piece(token_id) is not None]
        if not text:
            return b""
        first = self.at_start.get(text[0], self.pieces[text[0]]) or b""
        data = first + self.in_the_middle(text[1:])
        leading = len(data) - len(data.lstrip(b" "))
        return data[min(leading, self.strip_start) :]


def read_token_bytes(folder: Path, vocab_size: int | None = None) -> TokenBytes:
    """The tokenizer in `folder`/tokenizer.json; VocabError where its decoder cannot be followed.

    vocab_size: ids of the model, where they are more than the tokenizer's. The whole table is checked against the
    tokenizer's own decode.
    """
    path = folder / "tokenizer.json"
    tokens = vocabulary.read_vocabulary(folder).tokens
    tokenizer = _load(path)
    parsed = json.loads(path.read_text(encoding="utf-8"))
    rule = read_rule(parsed.get("decoder"), str(path))
    added = parsed.get("added_tokens") or []
    ids = {token: token_id for token_id, token in sorted(tokens.items(), reverse=True)}
    roles = read_roles(folder, added, _model_unk(parsed["model"], ids), ids)
    size = max([vocab_size or 0, *(token_id + 1 for token_id in tokens)])
    text = {token_id: token for token_id, token in tokens.items() if token_id not in roles}
    table = TokenBytes(
        folder=folder,
        pieces=tuple(rule.token_bytes(text[i]) if i in text else None for i in range(size)),
        roles=_role_array(size, text, roles),
        names={token_id: tokens[token_id] for token_id in sorted(roles)},
        eos=tuple(token_id for token_id, role in roles.items() if role is Role.EOS),
        added=frozenset(token["id"] for token in added),
        at_start=_at_start(rule, text),
        strip_start=rule.strip_start,
        byte_level=_has_byte_level(parsed.get("decoder")),
    )
    _check(table, tokenizer)
    return table


def _load(path: Path) -> Tokenizer:
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library's own class is Exception
        said = " ".join(str(error).split())
        raise VocabError(f"{path} cannot be loaded ({said}); save it again with transformers.") from None


def _model_unk(model: dict[str, Any], ids: dict[str, int]) -> int | None:
    """Unigram has the id, the other models the token."""
    token = model.get("unk_token")
    return model.get("unk_id") if token is None else ids.get(token)


def _role_array(size: int, text: dict[int, str], roles: dict[int, Role]) -> np.ndarray:
    array = np.full(size, Role.NOTHING, np.int8)
    array[list(text)] = Role.TEXT
    for token_id, role in roles.items():
        array[token_id] = role
    return array


def _at_start(rule: DecoderRule, text: dict[int, str]) -> dict[int, bytes]:
    first = {token_id: rule.token_bytes(token, is_first=True) for token_id, token in text.items()}
    return {token_id: data for token_id, data in first.items() if data != rule.token_bytes(text[token_id])}


def _has_byte_level(decoder: Any) -> bool:
    return '"ByteLevel"' in json.dumps(decoder)


def _check(table: TokenBytes, tokenizer: Tokenizer) -> None:
    """VocabError unless the tokenizer decodes every token as the table does, among others in a mixed order."""
    order = np.random.default_rng(0).permutation(np.flatnonzero(table.roles == Role.TEXT)).tolist()
    # Where a run of byte tokens is no UTF-8, byte fallback shows one U+FFFD for each of them, good ones too.
    texts = order if table.byte_level else [i for i in order if _is_utf8(table.pieces[i])]
    parts = [texts[i : i + _CHECKED_AT_ONCE] for i in range(0, len(texts), _CHECKED_AT_ONCE)]
    for part, found in zip(parts, tokenizer.decode_batch(parts, skip_special_tokens=False), strict=True):
        expected = table.from_start(part).decode("utf-8", "replace")
        if found != expected:
            raise VocabError(
                f"{table.folder / 'tokenizer.json'}: the text of its tokens {part[:3]}... is {found[:40]!r} and not"
                f" {expected[:40]!r} as its decoder says; a drafter of another vocabulary needs a tokenizer whose"
                " tokens are bytes."
            )


def _is_utf8(piece: bytes | None) -> bool:
    try:
        (piece or b"").decode()
    except UnicodeDecodeError:
        return False
    return True
