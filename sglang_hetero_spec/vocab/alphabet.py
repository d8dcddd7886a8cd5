"""The alphabet of byte-level BPE: one printable character for each byte (GPT-2, `bytes_to_unicode`)."""

from __future__ import annotations

_PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_REST = [byte for byte in range(256) if byte not in _PRINTABLE]

BYTE_TO_CHAR = {byte: chr(byte) for byte in _PRINTABLE} | {byte: chr(256 + i) for i, byte in enumerate(_REST)}
CHAR_TO_BYTE = {char: byte for byte, char in BYTE_TO_CHAR.items()}


def to_alphabet(data: bytes) -> str:
    """One character per byte."""
    return "".join(BYTE_TO_CHAR[byte] for byte in data)


def from_alphabet(token: str) -> bytes:
    """The bytes; a token with a character from outside the alphabet stands for its own UTF-8, as in `tokenizers`."""
    try:
        return bytes(CHAR_TO_BYTE[char] for char in token)
    except KeyError:
        return token.encode()
