"""Sends prompts to a server, so many at a time, and keeps what came back."""

from __future__ import annotations

import http.client
import json
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sglang_hetero_spec.demo.arms import TITLES, Arm
from sglang_hetero_spec.demo.errors import DemoError
from sglang_hetero_spec.demo.server import HOST, Server, why_it_ended
from sglang_hetero_spec.demo.shipped import Prompt

REQUEST_SECONDS = 600.0


@dataclass(frozen=True)
class Answer:
    """One request. prompt: its number; seconds: from sending it to the whole answer, as the client sees it.

    verify_steps, proposed, correct: SGLang's spec_verify_ct, spec_num_proposed_drafts and spec_num_correct_drafts,
    all 0 without speculation. drafter, confidence, source: of meta_info["hetero"], None without HETERO.
    """

    prompt: int
    task: str
    text: str
    output_ids: tuple[int, ...]
    prompt_tokens: int
    seconds: float
    verify_steps: int = 0
    proposed: int = 0
    correct: int = 0
    drafter: str | None = None
    confidence: float | None = None
    source: str | None = None
    finished: bool = False

    @property
    def completion_tokens(self) -> int:
        return len(self.output_ids)


@dataclass(frozen=True)
class Pass:
    """All prompts once through one arm. wall_seconds: from the first request's start to the last one's end."""

    arm: str
    concurrency: int
    wall_seconds: float
    answers: tuple[Answer, ...]


def run_pass(
    server: Server,
    arm: Arm,
    prompts: Sequence[Prompt],
    *,
    concurrency: int,
    tokens: int,
    on_answer: Callable[[Answer], None],
) -> Pass:
    """Every prompt once, greedily, `concurrency` at a time, in order. DemoError if a request fails."""
    todo: queue.SimpleQueue[int] = queue.SimpleQueue()
    done: queue.SimpleQueue[Answer | Exception] = queue.SimpleQueue()
    for number in range(len(prompts)):
        todo.put(number)

    def work() -> None:
        connection = http.client.HTTPConnection(HOST, server.port, timeout=REQUEST_SECONDS)
        try:
            while True:
                number = todo.get_nowait()
                prompt = prompts[number]
                done.put(_ask(connection, payload(prompt, arm, tokens), number, prompt.task))
        except queue.Empty:
            pass
        except Exception as error:
            done.put(error)
        finally:
            connection.close()

    start = time.perf_counter()
    # Daemons: Ctrl-C need not wait for answers that nobody will read.
    for _ in range(min(concurrency, len(prompts))):
        threading.Thread(target=work, daemon=True).start()
    answers: list[Answer] = []
    while len(answers) < len(prompts):
        answer = done.get()
        if isinstance(answer, Exception):
            raise _explain(server, answer) from answer
        answers.append(answer)
        on_answer(answer)
    wall = time.perf_counter() - start
    return Pass(arm.name, concurrency, wall, tuple(sorted(answers, key=lambda answer: answer.prompt)))


def payload(prompt: Prompt, arm: Arm, tokens: int) -> dict[str, Any]:
    params: dict[str, Any] = {"temperature": 0.0, "max_new_tokens": tokens}
    custom = arm.custom_params(prompt)
    if custom is not None:
        params["custom_params"] = custom
    return {"text": prompt.text, "sampling_params": params}


def _ask(connection: http.client.HTTPConnection, body: dict[str, Any], number: int, task: str) -> Answer:
    start = time.perf_counter()
    answer = post(connection, "/generate", body)
    seconds = time.perf_counter() - start
    meta = answer["meta_info"]
    route = meta.get("hetero") or {}
    return Answer(
        prompt=number,
        task=task,
        text=answer["text"],
        output_ids=tuple(answer["output_ids"]),
        prompt_tokens=meta["prompt_tokens"],
        seconds=seconds,
        verify_steps=meta.get("spec_verify_ct") or 0,
        proposed=meta.get("spec_num_proposed_drafts") or 0,
        correct=meta.get("spec_num_correct_drafts") or 0,
        drafter=route.get("drafter"),
        confidence=route.get("confidence"),
        source=route.get("source"),
        finished=meta["finish_reason"]["type"] == "stop",
    )


def post(connection: http.client.HTTPConnection, path: str, body: dict[str, Any] | None = None) -> Any:
    """The decoded answer; DemoError with the server's own words for any status but 200."""
    headers = {"Content-Type": "application/json"}
    connection.request("POST", path, None if body is None else json.dumps(body), headers)
    response = connection.getresponse()
    text = response.read().decode("utf-8", errors="replace")
    if response.status != 200:
        raise DemoError(f"SGLang answered {path} with HTTP {response.status} ({text.strip()[:200]}).")
    return json.loads(text) if path == "/generate" else text


def flush_cache(server: Server) -> None:
    """Forget all prefixes, so that every pass computes its prompts anew."""
    connection = http.client.HTTPConnection(HOST, server.port, timeout=REQUEST_SECONDS)
    try:
        # A request's slots are released shortly after its answer is sent: SGLang waits that long.
        post(connection, "/flush_cache?timeout=30")
    except (OSError, http.client.HTTPException) as error:
        raise _explain(server, error) from error
    finally:
        connection.close()


def logit_gap(server: Server, prompt: Prompt, output_ids: Sequence[int]) -> float:
    """How far apart the target's two best logits are after `prompt` and `output_ids` (as log-probabilities: the
    same difference). The server's prefill computes it, which is the target alone, whatever the server's drafters."""
    connection = http.client.HTTPConnection(HOST, server.port, timeout=REQUEST_SECONDS)
    ask = {"sampling_params": {"temperature": 0.0, "max_new_tokens": 1}, "return_logprob": True}
    try:
        read = post(connection, "/generate", {**ask, "text": prompt.text, "logprob_start_len": 0})
        prompt_ids = [token for _, token, _ in read["meta_info"]["input_token_logprobs"]]
        body = {**ask, "input_ids": [*prompt_ids, *output_ids], "top_logprobs_num": 2}
        best, second = post(connection, "/generate", body)["meta_info"]["output_top_logprobs"][0][:2]
    finally:
        connection.close()
    return best[0] - second[0]


def _explain(server: Server, error: Exception) -> DemoError:
    if isinstance(error, DemoError):
        return error
    time.sleep(1.0)  # a server that is going down takes a moment to be gone
    code = server.process.poll()
    if code is not None:
        return DemoError(why_it_ended(server.name, code, server.log))
    return DemoError(f"SGLang ({TITLES[server.name]}) broke off an answer ({type(error).__name__}: {error}).")
