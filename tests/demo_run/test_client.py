"""The client against an HTTP server that answers like SGLang, or does not."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from sglang_hetero_spec.demo.arms import Arm
from sglang_hetero_spec.demo.client import run_pass
from sglang_hetero_spec.demo.shipped import Prompt
from sglang_hetero_spec.serving.client import flush_cache, logit_gap
from sglang_hetero_spec.serving.errors import ServerEnded, ServingError
from sglang_hetero_spec.serving.server import Server

PROMPTS = [Prompt(f"prompt {i}", "ab"[i % 2]) for i in range(9)]
ARM = Arm("hetero", "hetero")


class Fake(ThreadingHTTPServer):
    """Answers prompt i with i + 1 tokens. busiest: how many requests it ever had at the same time."""

    daemon_threads = True
    request_queue_size = 64
    status = 200
    seconds = 0.05

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.seen: list[dict[str, Any]] = []
        self.lock = threading.Lock()
        self.now = self.busiest = 0


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Fake

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
        with self.server.lock:
            self.server.seen.append(body)
            self.server.now += 1
            self.server.busiest = max(self.server.busiest, self.server.now)
        time.sleep(self.server.seconds)
        with self.server.lock:
            self.server.now -= 1
        if self.server.status == 0:
            self.close_connection = True
            return
        text = json.dumps(_answer(body) if self.server.status == 200 else {"error": "no such drafter"}).encode()
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        pass


def _answer(body: dict[str, Any]) -> dict[str, Any]:
    number = int(body["text"].split()[1]) if "text" in body else 0
    meta: dict[str, Any] = {"prompt_tokens": 3, "finish_reason": {"type": "stop"}, "spec_verify_ct": 2,
            "spec_num_proposed_drafts": 8, "spec_num_correct_drafts": 5,
            "hetero": {"task": "a", "drafter": "d", "confidence": 0.75, "source": "router"}}  # fmt: skip
    if body.get("return_logprob"):
        meta["input_token_logprobs"] = [[None, 5, None], [-1.0, 6, None]]
        meta["output_top_logprobs"] = [[[-0.5, 1, None], [-0.75, 2, None]]]
    return {"text": "t", "output_ids": list(range(number + 1)), "meta_info": meta}


@pytest.fixture
def fake() -> Iterator[Fake]:
    with Fake() as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def server(fake: Fake, tmp_path: Path) -> Iterator[Server]:
    log = tmp_path / "log"
    log.write_text("")
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield Server("hetero", fake.server_port, process, log)
        process.kill()


def send(server: Server, arm: Arm = ARM, concurrency: int = 3) -> Any:
    seen: list[int] = []
    one = run_pass(server, arm, PROMPTS, concurrency=concurrency, tokens=7, on_answer=lambda a: seen.append(a.prompt))
    assert sorted(seen) == list(range(len(PROMPTS)))
    return one


def test_answers_keep_the_order_and_the_counts(server: Server) -> None:
    one = send(server)
    assert [answer.completion_tokens for answer in one.answers] == list(range(1, 10))
    assert [answer.task for answer in one.answers] == [prompt.task for prompt in PROMPTS]
    first = one.answers[0]
    assert (first.verify_steps, first.proposed, first.correct) == (2, 8, 5)
    assert (first.drafter, first.confidence, first.source, first.finished) == ("d", 0.75, "router", True)
    assert one.wall_seconds >= max(answer.seconds for answer in one.answers) >= 0.05


@pytest.mark.parametrize("concurrency", [1, 3, 9])
def test_as_many_at_a_time_as_asked_for(server: Server, fake: Fake, concurrency: int) -> None:
    fake.seconds = 0.5 if concurrency > 1 else 0.0  # long enough for a slow machine to start its threads
    send(server, concurrency=concurrency)
    assert fake.busiest == concurrency


def test_what_is_sent(server: Server, fake: Fake) -> None:
    send(server)
    assert fake.seen[0]["sampling_params"] == {"temperature": 0.0, "max_new_tokens": 7}
    send(server, Arm("hetero_general", "hetero", override={"drafter": "general"}), concurrency=1)
    assert fake.seen[9]["sampling_params"]["custom_params"] == {"hetero": {"drafter": "general"}}
    send(server, Arm("hetero", "hetero", oracle=True), concurrency=1)
    assert [seen["sampling_params"]["custom_params"]["hetero"]["task"] for seen in fake.seen[18:20]] == ["a", "b"]


def test_an_http_error_is_one_sentence(server: Server, fake: Fake) -> None:
    fake.status = 400
    with pytest.raises(ServingError, match=r"answered /generate with HTTP 400 \(.*no such drafter"):
        send(server)
    with pytest.raises(ServingError, match="answered /flush_cache"):
        flush_cache(server)


def test_a_server_that_breaks_off(server: Server, fake: Fake) -> None:
    fake.status = 0
    with pytest.raises(ServingError, match="broke off an answer"):
        send(server)


def test_a_server_that_died(server: Server, fake: Fake) -> None:
    fake.status = 0
    server.process.kill()
    with pytest.raises(ServerEnded, match="was killed, most likely for want of memory"):
        send(server)


def test_the_gap_is_asked_for_after_prompt_and_answer(server: Server, fake: Fake) -> None:
    assert logit_gap(server, {"text": "prompt 0"}, [7, 8]) == pytest.approx(0.25)
    assert fake.seen[1]["input_ids"] == [5, 6, 7, 8] and fake.seen[1]["top_logprobs_num"] == 2
