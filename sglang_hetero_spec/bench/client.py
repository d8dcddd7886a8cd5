"""Sends requests to a server, streams the answers, and keeps when each token came."""

from __future__ import annotations

import http.client
import json
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sglang_hetero_spec.serving.client import Peer, connect, gather, in_flight
from sglang_hetero_spec.serving.errors import ServingError


@dataclass(frozen=True)
class Streamed:
    """One answer. start: seconds since the block's start; seconds: from sending to the last byte; chunks: (seconds
    since sending, completion tokens so far), one for each time that there were more of them."""

    number: int
    start: float
    seconds: float
    chunks: list[tuple[float, int]]
    output_ids: list[int]
    meta: dict[str, Any]

    @property
    def ttft(self) -> float | None:
        return self.chunks[0][0] if self.chunks else None


def send_all(
    server: Peer,
    bodies: Sequence[dict[str, Any]],
    *,
    concurrency: int | None = None,
    times: Sequence[float] = (),
    on_answer: Callable[[Streamed], None],
) -> float:
    """Every body once, in order: `concurrency` at a time, or each at its time (seconds from now, ascending).

    Returns the seconds from the start to the last answer's end. ServingError if a request fails. on_answer runs in
    this thread, as they come.
    """
    began = time.perf_counter()

    def send(connection: http.client.HTTPConnection, number: int) -> Streamed:
        return stream(connection, bodies[number], number, began)

    if concurrency is not None:
        return in_flight(server, len(bodies), send, concurrency=concurrency, on_answer=on_answer)[1]
    done: queue.SimpleQueue[Streamed | Exception] = queue.SimpleQueue()

    def work(number: int) -> None:
        connection = connect(server)
        try:
            time.sleep(max(0.0, began + times[number] - time.perf_counter()))
            done.put(send(connection, number))
        except Exception as error:
            done.put(error)
        finally:
            connection.close()

    for number in range(len(bodies)):
        threading.Thread(target=work, args=(number,), daemon=True).start()
    gather(server, len(bodies), done, on_answer)
    return time.perf_counter() - began


def stream(connection: http.client.HTTPConnection, body: dict[str, Any], number: int, began: float) -> Streamed:
    """One request to /generate. began: time.perf_counter() at the start of the block."""
    sent = time.perf_counter()
    text = json.dumps({**body, "stream": True})
    connection.request("POST", "/generate", text, {"Content-Type": "application/json"})
    response = connection.getresponse()
    if response.status != 200:
        said = response.read().decode("utf-8", errors="replace").strip()[:200]
        raise ServingError(f"SGLang answered /generate with HTTP {response.status} ({said}).")
    chunks: list[tuple[float, int]] = []
    joined: list[int] = []  # where a server sends only what is new
    ids: list[int] = []
    meta: dict[str, Any] | None = None
    for event in events(response):
        now = time.perf_counter() - sent
        if "meta_info" not in event:
            raise ServingError(f"SGLang broke off an answer ({json.dumps(event)[:200]}).")
        meta, ids = event["meta_info"], event.get("output_ids") or []
        joined += ids
        so_far = meta.get("completion_tokens", 0)
        if so_far > (chunks[-1][1] if chunks else 0):
            chunks.append((now, so_far))
    seconds = time.perf_counter() - sent
    if meta is None or meta.get("finish_reason") is None:
        raise ServingError("SGLang ended an answer before its end.")
    total = meta.get("completion_tokens", len(ids))
    return Streamed(number, sent - began, seconds, chunks, ids if len(ids) == total else joined, meta)


def events(response: Iterator[bytes] | http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    """The JSON objects of a stream of server-sent events, up to [DONE]."""
    for line in response:
        if line.startswith(b"data:"):
            data = line[5:].strip()
            if data == b"[DONE]":
                continue  # the response is read to its end, so that the connection can be used again
            yield json.loads(data)
