"""A server that streams like SGLang. What it answers depends on the prompt alone, and on `wrong` drafters."""

from __future__ import annotations

import json
import threading
import time
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Fake(ThreadingHTTPServer):
    """algorithm: as in /server_info. busiest: requests that it ever had at the same time. breaks_at: the request, from
    1, that gets no end; wrong: a drafter whose answers are not the target's."""

    daemon_threads = True
    request_queue_size = 64
    status = 200
    seconds = 0.0
    incremental = False
    metrics = True
    breaks_at = 0
    wrong = ""

    def __init__(self, algorithm: str | None = "HETERO") -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.algorithm = algorithm
        self.seen: list[dict[str, Any]] = []
        self.flushes = 0
        self.lock = threading.Lock()
        self.now = self.busiest = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def start(self) -> Fake:
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        return self


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Fake

    def do_GET(self) -> None:
        routes = {"/server_info": self._info, "/metrics": self._metrics, "/v1/loads?include=core": self._loads}
        if self.path not in routes or (self.path == "/metrics" and not self.server.metrics):
            return self._send(404, "{}")
        self._send(200, routes[self.path]())

    def _info(self) -> str:
        info = {
            **{"version": "0.5.23", "model_path": "/target", "speculative_algorithm": self.server.algorithm},
            **{"internal_states": [{"memory_usage": {"kvcache": 0.25}}], "launch_command": ["sglang", "serve"]},
        }
        return json.dumps(info)

    def _metrics(self) -> str:
        total = len(self.server.seen)
        if self.server.algorithm != "HETERO":
            return "# TYPE other counter\nother_total 1.0\n"
        return "\n".join(
            f"# TYPE sglang:hetero_{name} counter\nsglang:hetero_{name}_total{labels} {value}"
            for name, labels, value in (
                ("draft_seconds", '{drafter="sql"}', 0.25 * total),
                ("verify_seconds", "", 1.0 * total),
                ("host_seconds", "", 0.125 * total),
                ("verify_forwards", "", 3.0 * total),
            )
        )

    def _loads(self) -> str:
        return json.dumps({"loads": [{"num_used_tokens": 7}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
        if self.path != "/generate":
            self.server.flushes += 1
            return self._send(200, "Cache flushed.")
        with self.server.lock:
            self.server.seen.append(body)
            number = len(self.server.seen)
            self.server.now += 1
            self.server.busiest = max(self.server.busiest, self.server.now)
        time.sleep(self.server.seconds)
        with self.server.lock:
            self.server.now -= 1
        if self.server.status != 200:
            return self._send(self.server.status, '{"error": "no such drafter"}')
        if body.get("return_logprob"):
            return self._send(200, json.dumps(self._logprobs()))
        self._stream(self._answers(body), breaks=number == self.server.breaks_at)

    def _answers(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        params = body["sampling_params"]
        asked = params.get("custom_params", {}).get("hetero", {})
        drafter = asked.get("drafter") or asked.get("task") or "routed"
        ids = [zlib.crc32(f"{body.get('text') or body['input_ids']}{i}".encode()) % 1000 for i in range(5)]
        ids = ids[: params["max_new_tokens"]]
        if drafter == self.server.wrong:
            ids = [*ids[:-1], 1001]
        meta: dict[str, Any] = {"prompt_tokens": 9, "finish_reason": None}
        if self.server.algorithm is not None:
            meta |= {"spec_verify_ct": 2, "spec_num_proposed_drafts": 8, "spec_num_correct_drafts": 3}
            meta["spec_correct_drafts_histogram"] = [0, 1, 1]
        if self.server.algorithm == "HETERO":
            meta["hetero"] = {"task": None, "drafter": drafter, "confidence": 0.5, "source": "router"}
        ends = [1, min(3, len(ids)), len(ids)]
        starts = [0, *ends] if self.server.incremental else [0, 0, 0]
        found = [
            {"output_ids": ids[start:end], "meta_info": {**meta, "completion_tokens": end}}
            for start, end in zip(starts, ends, strict=False)
        ]
        found[-1]["meta_info"]["finish_reason"] = {"type": "length"}
        return found

    def _logprobs(self) -> dict[str, Any]:
        tops = [[[-0.5, 1, None], [-0.75, 2, None]]]
        return {"meta_info": {"input_token_logprobs": [[None, 5, None]], "output_top_logprobs": tops}}

    def _stream(self, answers: list[dict[str, Any]], breaks: bool) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        events = [json.dumps(answer) for answer in answers]
        for event in events[:1] if breaks else [*events, "[DONE]"]:
            data = f"data: {event}\n\n".encode()
            self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
            self.wfile.flush()
        if breaks:
            self.close_connection = True
        else:
            self.wfile.write(b"0\r\n\r\n")

    def _send(self, status: int, text: str) -> None:
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass
