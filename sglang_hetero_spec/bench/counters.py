"""What a server says of itself: counters over a block, and the memory of its KV cache."""

from __future__ import annotations

import http.client
import json
import os
import threading
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from sglang_hetero_spec.serving.client import Peer, connect, get
from sglang_hetero_spec.serving.errors import ServerEnded, ServingError
from sglang_hetero_spec.serving.metrics import (
    DRAFT_SECONDS,
    HOST_SECONDS,
    ROUTE_SECONDS,
    ROUTES,
    VERIFY_FORWARDS,
    VERIFY_SECONDS,
    samples,
)

_GIB = 1 << 30
_POLL_SECONDS = 1.0
_SUMMED = (VERIFY_SECONDS, HOST_SECONDS, VERIFY_FORWARDS, ROUTE_SECONDS, ROUTES)


@dataclass(frozen=True)
class Counters:
    """Since the server started; None where it has no such counter. drafts: seconds by drafter."""

    drafts: dict[str, float] | None = None
    verify: float | None = None
    host: float | None = None
    forwards: float | None = None
    route_seconds: float | None = None
    routes: float | None = None

    def since(self, before: Counters) -> dict[str, Any]:
        """The fields of a BlockRecord that come from counters."""
        drafts = None if self.drafts is None else _differences(self.drafts, before.drafts or {})
        verify, host = _difference(self.verify, before.verify), _difference(self.host, before.host)
        forwards = _difference(self.forwards, before.forwards)
        routes = _difference(self.routes, before.routes)
        return {
            "draft_seconds": None if drafts is None else sum(drafts.values()),
            "target_seconds": None if verify is None or host is None else max(0.0, verify - host),
            "host_seconds": host,
            "forwards": None if forwards is None else round(forwards),
            "route_seconds": _difference(self.route_seconds, before.route_seconds),
            "routes": None if routes is None else round(routes),
            "drafter_seconds": drafts,
        }


def read_counters(server: Peer) -> Counters:
    """From /metrics; all None for a server without metrics."""
    try:
        return parse_counters(get(server, "/metrics"))
    except ServerEnded:
        raise
    except ServingError:
        return Counters()


def parse_counters(text: str) -> Counters:
    """From the text of /metrics. A HETERO server that has drafted nothing yet has drafts = {}."""
    sums: dict[str, float] = {}
    drafts: dict[str, float] = {}
    for sample in samples(text, (DRAFT_SECONDS, *_SUMMED)):
        into, key = (drafts, sample.labels.get("drafter", "")) if sample.name == DRAFT_SECONDS else (sums, sample.name)
        into[key] = into.get(key, 0.0) + sample.value
    return Counters(
        drafts=drafts if drafts or VERIFY_SECONDS in sums else None,
        verify=sums.get(VERIFY_SECONDS),
        host=sums.get(HOST_SECONDS),
        forwards=sums.get(VERIFY_FORWARDS),
        route_seconds=sums.get(ROUTE_SECONDS),
        routes=sums.get(ROUTES),
    )


def _difference(now: float | None, before: float | None) -> float | None:
    return None if now is None else now - (before or 0.0)


def _differences(now: dict[str, float], before: dict[str, float]) -> dict[str, float]:
    found = {name: seconds - before.get(name, 0.0) for name, seconds in now.items()}
    return {name: seconds for name, seconds in found.items() if seconds > 0}


@dataclass(frozen=True)
class ServerInfo:
    """From /server_info. kv_bytes: of the target's KV cache, to a thousandth of a GiB. None where it does not say."""

    version: str | None = None
    model_path: str | None = None
    algorithm: str | None = None
    draft_path: str | None = None
    command: tuple[str, ...] | None = None
    kv_bytes: int | None = None


def read_info(server: Peer) -> ServerInfo:
    """ServingError where the server does not answer."""
    try:
        info = json.loads(get(server, "/server_info"))
    except json.JSONDecodeError:
        return ServerInfo()
    if not isinstance(info, dict):
        return ServerInfo()
    states = info.get("internal_states") or [{}]
    gib = (states[0].get("memory_usage") or {}).get("kvcache") if isinstance(states[0], dict) else None
    command = info.get("launch_command")
    return ServerInfo(
        version=info.get("version"),
        model_path=info.get("model_path"),
        algorithm=info.get("speculative_algorithm"),
        draft_path=info.get("speculative_draft_model_path"),
        command=_words(command),
        kv_bytes=None if not isinstance(gib, (int, float)) else round(gib * _GIB),
    )


def _words(command: object) -> tuple[str, ...] | None:
    if isinstance(command, str):
        return tuple(command.split())
    return tuple(map(str, command)) if isinstance(command, list) else None


@dataclass
class Watch:
    """Asks a server once a second how many tokens its KV cache holds. peak: None if it never said."""

    server: Peer
    peak: int | None = None
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Watch:
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread is not None and error is None:
            self._thread.join(timeout=2 * _POLL_SECONDS)

    def _run(self) -> None:
        connection = connect(self.server, timeout=30.0)
        try:
            while not self._stop.wait(_POLL_SECONDS):
                connection.request("GET", "/v1/loads?include=core")
                response = connection.getresponse()
                text = response.read()
                if response.status != 200:
                    return
                used = sum(load["num_used_tokens"] for load in json.loads(text)["loads"])
                self.peak = max(self.peak or 0, used)
        except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
            return  # what nobody says stays None
        finally:
            connection.close()


def load_average() -> float | None:
    """Over the last minute; None where the system does not tell."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):
        return None
