"""Numbers and user data as words: always the same form, never a character that a page cannot hold."""

from __future__ import annotations

_SHORT = 240


def whole(number: int) -> str:
    """1,440."""
    return f"{number:,}"


def times(ratio: float) -> str:
    """1.84x, with the multiplication sign."""
    return f"{ratio:.2f}\u00d7"


def speed(tokens_per_second: float) -> str:
    """Tokens per second: 183.2, and 18,321 where decimals say nothing."""
    return f"{tokens_per_second:.1f}" if tokens_per_second < 1000 else f"{tokens_per_second:,.0f}"


def length(accept_length: float) -> str:
    return f"{accept_length:.2f}"


def percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def signed_percent(share: float) -> str:
    return f"{100 * share:+.1f}%"


def size(number: int) -> str:
    """4.2M, 313k: parameters, tokens."""
    for unit, factor in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= factor:
            return f"{number / factor:.3g}{unit}"
    return str(number)


def plural(number: int, noun: str, many: str | None = None) -> str:
    """1 task, 2 tasks."""
    return f"{whole(number)} {noun if number == 1 else many or noun + 's'}"


def clean(text: str) -> str:
    """The text without what no page may hold: control characters and halves of surrogates become U+FFFD."""
    return "".join(c if c in "\n\t" or not _is_unfit(ord(c)) else "\ufffd" for c in text.replace("\r\n", "\n"))


def shortened(text: str, most: int = _SHORT) -> str:
    """At most `most` characters on one line, an ellipsis where it was longer."""
    line = " ".join(clean(text[: 4 * most]).split())
    return line if len(line) <= most and len(text) <= 4 * most else line[: most - 1].rstrip() + "\u2026"


def excerpt(text: str, most: int = 600) -> str:
    """The start of a text with its line breaks."""
    kept = clean(text).strip()
    return kept if len(kept) <= most else kept[: most - 1].rstrip() + "\u2026"


def _is_unfit(code: int) -> bool:
    is_control = code < 0x20 or 0x7F <= code < 0xA0
    turns_the_line = 0x202A <= code <= 0x202E or 0x2066 <= code <= 0x2069  # bidi overrides, which hide text
    return is_control or turns_the_line or 0xD800 <= code <= 0xDFFF or (code & 0xFFFE) == 0xFFFE
