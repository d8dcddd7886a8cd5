"""A server that somebody else started."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from sglang_hetero_spec.commands.output import UsageError


@dataclass(frozen=True)
class Remote:
    """It answers at http(s)://host:port. title: what messages call it."""

    name: str
    host: str
    port: int
    secure: bool = False
    title: str = ""

    def why_it_ended(self) -> None:
        """Nobody here knows; the interface of `Server`."""

    def __str__(self) -> str:
        return f"http{'s' if self.secure else ''}://{self.host}:{self.port}"


def parse_url(name: str, url: str, title: str = "") -> Remote:
    """UsageError, in one sentence, for what is not http://HOST[:PORT]."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/") or parts.query:
        raise UsageError(f"{url!r} is not the address of a server; give http://HOST:PORT.")
    secure = parts.scheme == "https"
    return Remote(name, parts.hostname, port or (443 if secure else 80), secure, title)
