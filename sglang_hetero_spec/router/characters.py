"""Tables over code points: what is folded together, and what belongs to a word.

Plain tables rather than `str.lower` and `str.isalnum`, whose answers change with Python's Unicode version.
"""

from __future__ import annotations

import numpy as np

# Beyond Unicode: no text can contain a marker.
START, GAP, END = 0x110000, 0x110001, 0x110002

_SIZE = 0x3040  # everything up to CJK punctuation; beyond it nothing is folded and all is a word
_SPACE = ord(" ")


def _fold_table() -> np.ndarray:
    table = np.arange(_SIZE + 1, dtype=np.uint32)
    for first, last, offset in (
        (0x41, 0x5A, 32),
        (0xC0, 0xD6, 32),
        (0xD8, 0xDE, 32),
        (0x391, 0x3A9, 32),
        (0x410, 0x42F, 32),
        (0x400, 0x40F, 80),
    ):
        table[first : last + 1] += offset
    table[ord("0") : ord("9") + 1] = ord("0")  # that there is a number matters, not which
    for first, last in ((0x00, 0x09), (0x0B, 0x1F), (0x7F, 0xA0), (0x2000, 0x200A), (0x2028, 0x202F)):
        table[first : last + 1] = _SPACE
    table[[0x205F, 0x3000]] = _SPACE
    table[0x2010:0x2016] = ord("-")
    table[[0x2018, 0x2019]] = ord("'")
    table[[0x201C, 0x201D]] = ord('"')
    return table


def _word_table() -> np.ndarray:
    table = np.zeros(_SIZE + 1, dtype=bool)
    for first, last in ((0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A), (0xC0, 0x1FFF), (0x2070, 0x2FFF)):
        table[first : last + 1] = True
    table[[0xD7, 0xF7]] = False
    table[_SIZE] = True
    return table


_FOLD = _fold_table()
_WORD = _word_table()


def fold_and_find_words(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Code points (uint32) with case, digits, quotes, dashes and spaces made alike, and which lie in words.

    The caller clears the words' mask at markers, which it knows.
    """
    index = np.minimum(codes, _SIZE)
    return np.where(index < _SIZE, _FOLD.take(index), codes), _WORD.take(index)
