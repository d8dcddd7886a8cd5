"""What goes wrong in this package, each told in one sentence."""

from __future__ import annotations


class RouterError(ValueError):
    """A router that cannot be fitted, read or written; `str(error)` is one line."""

    def __init__(self, sentence: str) -> None:
        super().__init__(printable(sentence))


class OverrideError(ValueError):
    """A request whose `custom_params["hetero"]` cannot be followed; `str(error)` is the body of an HTTP 400."""

    def __init__(self, sentence: str) -> None:
        super().__init__(printable(sentence))


def printable(text: str) -> str:
    """ASCII without control characters: names come from requests and files, and must not break a log line."""
    return "".join(c if " " <= c <= "~" else "?" for c in text)


def shortened(text: str, limit: int = 64) -> str:
    """At most `limit` characters of a text that may be of any length."""
    return text if len(text) <= limit else text[: limit - 3] + "..."
