"""Running SGLang servers, by their native /generate; several share the prompts, and one may go away."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import requests

from sglang_hetero_spec.build.regenerate.backend import Limits, Refused, Reply, Request, outcome
from sglang_hetero_spec.build.regenerate.errors import RegenerateError, RegenerateStopped

RETRY_SECONDS = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 1800.0
_NOT_OURS = (401, 403, 404, 405)  # the address or the key is wrong; asking again will not change that
_HANGS = "no answer in time"


@dataclass
class _Site:
    """One server. answered: how many answers it gave; lost: why it is given up."""

    url: str
    answered: int = 0
    lost: str | None = None


@dataclass
class _Work:
    todo: queue.SimpleQueue[Request] = field(default_factory=queue.SimpleQueue)
    done: queue.SimpleQueue[Reply | Refused | _Lost] = field(default_factory=queue.SimpleQueue)
    over: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True)
class _Lost:
    """A worker ends because its server is gone; its request was handed back."""

    site: _Site


class ServerBackend:
    """`concurrency` requests in flight at each of `urls`."""

    def __init__(
        self,
        urls: Sequence[str],
        concurrency: int,
        *,
        retry_seconds: Sequence[float] = RETRY_SECONDS,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> None:
        self._sites = [_Site(url) for url in urls]
        self._concurrency = concurrency
        self._retry_seconds = tuple(retry_seconds)
        self._answer_seconds = answer_seconds
        self._work = _Work()
        self.limits = Limits(None, None)
        self.notes: list[str] = []
        self.is_seeded = True
        self.is_seeded_by_processor = False

    def __enter__(self) -> ServerBackend:
        found = [limits for site in self._sites if (limits := self._look_at(site)) is not None]
        if not found:
            raise RegenerateStopped(
                f"No SGLang server answers at {self._sites[0].url} ({self._sites[0].lost})",
                "start it, or correct --url",
            )
        self.notes += [f"{site.url} is left out: {site.lost}." for site in self._sites if site.lost]
        self._sites = [site for site in self._sites if site.lost is None]
        self.limits = Limits(_least([one.context for one in found]), _least([one.prompt for one in found]))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._work.over.set()

    def tokens_of(self, text: str) -> list[tuple[str, tuple[int, ...]]]:
        found = []
        for site in self._sites:
            try:
                response = requests.post(f"{site.url}/tokenize", json={"prompt": text}, timeout=CONNECT_SECONDS)
                if response.status_code == 200:  # a router in between may not have it
                    found.append((site.url, tuple(response.json()["tokens"])))
            except (requests.RequestException, ValueError, KeyError, TypeError):
                continue
        return found

    def answers(self, requests: Sequence[Request]) -> Iterator[Reply | Refused]:
        work = self._work
        for request in requests:
            work.todo.put(request)
        workers = min(self._concurrency * len(self._sites), max(1, len(requests)))
        for number in range(workers):
            site = self._sites[number % len(self._sites)]
            # Daemons: Ctrl-C need not wait for answers that nobody will read.
            threading.Thread(target=self._serve, args=(site, work), daemon=True).start()
        left = len(requests)
        while left:
            got = work.done.get()
            if not isinstance(got, _Lost):
                left -= 1
                yield got
                continue
            workers -= 1
            if workers == 0:
                raise RegenerateStopped(f"{got.site.url} went away ({got.site.lost})")
        work.over.set()

    def _serve(self, site: _Site, work: _Work) -> None:
        session = requests.Session()
        with session:
            while not work.over.is_set():
                try:
                    request = work.todo.get(timeout=0.2)  # one may be handed back until all are done
                except queue.Empty:
                    continue
                result = self._ask(session, site, request)
                if result is None:
                    work.todo.put(request)
                    work.done.put(_Lost(site))
                    return
                work.done.put(result)

    def _ask(self, session: requests.Session, site: _Site, request: Request) -> Reply | Refused | None:
        """One request, tried again with growing pauses; None if the server is gone."""
        body = {"input_ids": list(request.input_ids), "sampling_params": request.params}
        answered_before = site.answered
        why = ""
        for pause in (*self._retry_seconds, None):
            result = self._try(session, site, request.number, body)
            if not isinstance(result, str):
                site.answered += isinstance(result, Reply)
                return result
            why = result
            if pause is None or why == _HANGS or site.lost is not None or self._work.over.wait(pause):
                break
        # A server that answered others all the while has a quarrel with this prompt alone.
        if site.answered > answered_before and site.lost is None:
            return Refused(request.number, f"the server failed on it each time: {why}", is_final=False)
        site.lost = site.lost or why
        return None

    def _try(self, session: requests.Session, site: _Site, number: int, body: dict[str, Any]) -> Reply | Refused | str:
        try:
            response = session.post(f"{site.url}/generate", json=body, timeout=(CONNECT_SECONDS, self._answer_seconds))
            if response.status_code in (400, 413, 422):
                return Refused(number, f"the server refused it: {_message(response)}")
            if response.status_code in _NOT_OURS:
                site.lost = f"HTTP {response.status_code} for /generate: {_message(response)}"
                return site.lost
            if response.status_code != 200:
                return f"HTTP {response.status_code}: {_message(response)}"
            return outcome(number, response.json())
        except (requests.RequestException, OSError, ValueError) as error:
            return _in_words(error)

    def _look_at(self, site: _Site) -> Limits | None:
        """The server's limits; None, and `site.lost` says why, if there is no SGLang server that generates."""
        try:
            model = _get(site.url, "/model_info")
            if model.get("is_generation") is False:
                site.lost = "it serves an embedding model"
                return None
            served = _get(site.url, "/server_info")
            cards = _get(site.url, "/v1/models").get("data") or [{}]
        except (requests.RequestException, OSError, ValueError) as error:
            site.lost = _in_words(error)
            return None
        self.is_seeded &= served.get("enable_deterministic_inference") is True
        return Limits(_whole(cards[0].get("max_model_len")), _whole(served.get("max_req_input_len")))


def parse_urls(text: str) -> tuple[str, ...]:
    """The addresses in a comma-separated list, each once; RegenerateError for what is none."""
    urls = tuple(dict.fromkeys(part.strip().rstrip("/") for part in text.split(",")))
    for url in urls:
        try:
            parts = urlsplit(url)
            usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            usable = False
        if not usable:
            raise RegenerateError(f"--url has {url!r}, which is no address; write it as http://host:port.")
    return urls


def _get(url: str, path: str) -> dict[str, Any]:
    response = requests.get(url + path, timeout=(CONNECT_SECONDS, 60))
    if response.status_code != 200:
        raise ValueError(f"HTTP {response.status_code} for {path}: {_message(response)}")
    found = response.json()
    if not isinstance(found, dict):
        raise ValueError(f"{path} is not what an SGLang server says")
    return found


def _message(response: requests.Response) -> str:
    """The server's own words, in one line."""
    try:
        found = response.json()
        error = found.get("error", found)
        text = str(error.get("message", error) if isinstance(error, dict) else error)
    except (ValueError, AttributeError):
        text = response.text
    return " ".join(text.split())[:300] or "no reason given"


def _in_words(error: Exception) -> str:
    if isinstance(error, requests.ConnectionError):  # also one that took too long: a busy server's queue was full
        return "no connection"
    if isinstance(error, requests.Timeout):
        return _HANGS
    return " ".join(str(error).split())[:300] or type(error).__name__


def _whole(value: object) -> int | None:
    return value if type(value) is int and value > 0 else None


def _least(values: Sequence[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return min(known) if known else None
