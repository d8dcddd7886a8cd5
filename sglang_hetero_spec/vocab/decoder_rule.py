"""What a decoder of the `tokenizers` library makes of one token, read from its configuration.

A token has its bytes in the middle of a text; at the start some decoders drop a space. Decoders for which a token's
bytes depend on more than that are refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tokenizers import Regex, decoders

from sglang_hetero_spec.vocab.alphabet import from_alphabet
from sglang_hetero_spec.vocab.errors import VocabError

# A token on its way through the steps, and whether it is the first of its text.
Piece = str | bytes
Step = Callable[[Piece, bool], Piece]

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


@dataclass(frozen=True)
class DecoderRule:
    """steps: run over each token. strip_start: spaces at most that the whole text loses at its start."""

    steps: tuple[Step, ...]
    strip_start: int

    def token_bytes(self, token: str, is_first: bool = False) -> bytes:
        piece: Piece = token
        for step in self.steps:
            piece = step(piece, is_first)
        return piece if isinstance(piece, bytes) else piece.encode()


def read_rule(decoder: dict[str, Any] | None, file: str) -> DecoderRule:
    """decoder: the `decoder` of a tokenizer.json. file: its name, for a sentence."""
    parts = _flat(decoder)
    if not parts:
        raise VocabError(
            f"{file} has no decoder, so that nobody knows what text its tokens are; save it with the decoder that"
            " belongs to its model."
        )
    steps: list[Step] = []
    strip_start, fused, has_bytes = 0, False, False
    for part in parts:
        kind = part["type"]
        if kind == "Fuse":
            fused = True
        elif kind == "Strip" and fused and part["content"] == " " and part["stop"] == 0:
            strip_start += int(part["start"])
        elif fused or has_bytes or kind not in _STEPS:
            place = " behind Fuse or behind bytes" if kind in _STEPS else ""
            raise VocabError(
                f"{file} has a decoder with {kind!r}{place}, by which the bytes of a token depend on its neighbours;"
                f" drafters of another vocabulary need one of {', '.join(sorted(_STEPS))}, and Fuse and Strip."
            )
        else:
            steps.append(_STEPS[kind](part))
            has_bytes = kind in ("ByteLevel", "ByteFallback")
    return DecoderRule(steps=tuple(steps), strip_start=strip_start)


def _flat(decoder: dict[str, Any] | None) -> list[dict[str, Any]]:
    if decoder is None:
        return []
    if decoder["type"] == "Sequence":
        return [part for inner in decoder["decoders"] for part in _flat(inner)]
    return [decoder]


def _byte_level(_: dict[str, Any]) -> Step:
    return lambda piece, _: from_alphabet(_text(piece))


def _byte_fallback(_: dict[str, Any]) -> Step:
    def step(piece: Piece, _: bool) -> Piece:
        found = _BYTE_TOKEN.fullmatch(_text(piece))
        return bytes.fromhex(found[1]) if found else piece

    return step


def _metaspace(part: dict[str, Any]) -> Step:
    """Every replacement character of the first token is dropped, unless nothing was prepended when encoding."""
    replacement = part["replacement"]
    scheme = part.get("prepend_scheme", "always" if part.get("add_prefix_space", True) else "never")
    at_start = " " if scheme == "never" else ""
    return lambda piece, is_first: _text(piece).replace(replacement, at_start if is_first else " ")


def _replace(part: dict[str, Any]) -> Step:
    pattern, content = part["pattern"], part["content"]
    if "String" in pattern:
        return lambda piece, _: _text(piece).replace(pattern["String"], content)
    return _by_library(decoders.Replace(Regex(pattern["Regex"]), content))


def _strip(part: dict[str, Any]) -> Step:
    return _by_library(decoders.Strip(part["content"], part["start"], part["stop"]))


def _by_library(decoder: decoders.Decoder) -> Step:
    return lambda piece, _: decoder.decode([_text(piece)])


def _text(piece: Piece) -> str:
    assert isinstance(piece, str), "read_rule lets nothing follow bytes"
    return piece


_STEPS: dict[str, Callable[[dict[str, Any]], Step]] = {
    "ByteLevel": _byte_level,
    "ByteFallback": _byte_fallback,
    "Metaspace": _metaspace,
    "Replace": _replace,
    "Strip": _strip,
}
