"""A tiny server that speaks as much of SGLang's HTTP as `regenerate` uses, with faults on demand."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

# A fault is told the prompt's ids and how often they were asked before; what it returns is sent in place of an answer:
# an HTTP status, "drop" (the connection), "abort" (SGLang's cut-off answer) or None (no fault).
Fault = Callable[[tuple[int, ...], int], int | str | None]


def answer_to(ids: tuple[int, ...], params: dict[str, Any]) -> dict[str, Any]:
    """What the fake target writes: a function of what it was asked alone."""
    length = min(params["max_new_tokens"], 3 + sum(ids) % 5)
    seed = params.get("sampling_seed", 0)
    output = [(token * 7 + seed) % 4000 for token in (ids * 8)[:length]]
    return {
        "text": " ".join(map(str, output)),
        "output_ids": output,
        "meta_info": {"finish_reason": {"type": "length" if length == params["max_new_tokens"] else "stop"}},
    }


@dataclass
class FakeServer:
    """asked: the prompts' ids of every /generate, in order of arrival; answered: those that got an answer."""

    fault: Fault | None = None
    seconds: float = 0.0
    context: int = 1024
    is_deterministic: bool = True
    tokenize: Callable[[str], list[int]] | None = None
    asked: list[tuple[int, ...]] = field(default_factory=list)
    answered: list[tuple[int, ...]] = field(default_factory=list)
    params: list[dict[str, Any]] = field(default_factory=list)
    url: str = ""
    most_at_once: int = 0
    _now: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def get(self, path: str) -> dict[str, Any] | None:
        return {
            "/model_info": {"is_generation": True},
            "/server_info": {
                "max_req_input_len": self.context - 6,
                "enable_deterministic_inference": self.is_deterministic,
            },
            "/v1/models": {"data": [{"max_model_len": self.context}]},
        }.get(path)

    def generate(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]] | None:
        ids = tuple(body["input_ids"])
        with self._lock:
            before = self.asked.count(ids)
            self.asked.append(ids)
            self.params.append(body["sampling_params"])
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        time.sleep(self.seconds)
        fault = self.fault(ids, before) if self.fault is not None else None
        with self._lock:
            self._now -= 1
            if fault is None:
                self.answered.append(ids)
        if fault == "drop":
            return None
        if fault == "abort":
            reason = {"type": "abort", "message": "going down"}
            return 200, {"text": "cut", "output_ids": [1], "meta_info": {"finish_reason": reason}}
        if fault is not None:
            return int(fault), {"error": {"message": f"status {fault}"}}
        return 200, answer_to(ids, body["sampling_params"])


class _Listening(ThreadingHTTPServer):
    # Clients come dozens at once; whom the queue has no room for tries again a second later, and later still.
    request_queue_size = 256


@contextmanager
def serving(fake: FakeServer | None = None) -> Iterator[FakeServer]:
    fake = fake or FakeServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            found = fake.get(self.path)
            self._send(404 if found is None else 200, found or {})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path == "/tokenize":
                known = fake.tokenize is not None
                self._send(200 if known else 404, {"tokens": fake.tokenize(body["prompt"])} if known else {})
                return
            found = fake.generate(body)
            if found is None:
                self.close_connection = True
                return
            self._send(*found)

        def _send(self, status: int, value: dict[str, Any]) -> None:
            data = json.dumps(value).encode()
            try:
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)
            except OSError:
                self.close_connection = True  # the client was killed

    server = _Listening(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients are killed here
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    fake.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()
