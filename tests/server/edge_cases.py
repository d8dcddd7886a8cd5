"""Requests at the edge of what a server takes. HETERO must answer each as a server without speculation does."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from tests.support.routed_pool import CONTEXT
from tests.support.servers import Server

Request = tuple[str, dict[str, Any]]


class Answer(NamedTuple):
    """What a client sees of an answer that does not depend on time or on speculation."""

    status: int
    text: Any
    finish: Any
    error: Any


def _generate(prompt: str | list[int] | None, **params: Any) -> Request:
    body: dict[str, Any] = {"sampling_params": {"temperature": 0, "max_new_tokens": 12, **params}}
    if prompt is not None:
        body["text" if isinstance(prompt, str) else "input_ids"] = prompt
    return "/generate", body


def _long(num_tokens: int) -> list[int]:
    return [5 + i * i % 200 for i in range(num_tokens)]


EDGES = {
    "no ids": _generate([]),
    "no prompt": _generate(None),
    "one token": _generate("a"),
    "one id": _generate([7]),
    "control characters": _generate("\x00\x01\x02\t\r\n\x1b[0m\x7f\x85"),
    "blanks": _generate("   \n\n   "),
    "not a character": _generate("\ufffe\uffff\ud83d\ude00 \u202e"),
    "ids that are text": ("/generate", {"input_ids": ["a", "b"], "sampling_params": {"max_new_tokens": 2}}),
    "no new tokens": _generate("hello", max_new_tokens=0),
    "one new token": _generate("hello", max_new_tokens=1),
    "two new tokens": _generate("hello", max_new_tokens=2),
    "minus one new token": _generate("hello", max_new_tokens=-1),
    "an unknown parameter": _generate("hello", temparature=1),
    "a temperature below zero": _generate("hello", temperature=-1),
    "a top-p above one": _generate("hello", temperature=1, top_p=2),
    "an empty batch": ("/generate", {"text": [], "sampling_params": {"max_new_tokens": 2}}),
    "an empty completion": ("/v1/completions", {"model": "m", "prompt": "", "max_tokens": 4, "temperature": 0}),
    "an empty chat": (
        "/v1/chat/completions",
        {"model": "m", "messages": [{"role": "user", "content": ""}], "max_tokens": 4, "temperature": 0},
    ),
    "a completion of no tokens": ("/v1/completions", {"model": "m", "prompt": "a", "max_tokens": 0}),
    "a chat without messages": ("/v1/chat/completions", {"model": "m", "messages": [], "max_tokens": 4}),
    **{f"context {less:+d}": _generate(_long(CONTEXT + less), max_new_tokens=max(1, -less)) for less in range(-8, 2)},
    **{f"the last {num}": _generate(_long(CONTEXT - num), max_new_tokens=num, ignore_eos=True) for num in (9, 15, 32)},
    "a chat without a limit": (
        "/v1/chat/completions",
        {"model": "m", "messages": [{"role": "user", "content": "x" * 400}], "temperature": 0, "ignore_eos": True},
    ),
    "text beyond the context": _generate("x" * (3 * CONTEXT)),
    "more tokens than fit": _generate(_long(CONTEXT - 20), max_new_tokens=40),
}


# Texts that are no tokens at all (with a tokenizer that adds none).
EMPTY = {
    "text": _generate(""),
    "text of a batch": ("/generate", {"text": ["b", ""], "sampling_params": {"max_new_tokens": 2}}),
}


def ask(server: Server, request: Request) -> Answer:
    path, body = request
    response = server.post(path, body)
    content = response.json() if response.content else None
    if response.status_code != 200:
        return Answer(response.status_code, None, None, content)
    return Answer(200, *_text_and_finish(content), None)


def _text_and_finish(content: Any) -> tuple[Any, Any]:
    answers = content if isinstance(content, list) else content.get("choices", [content])
    texts = [a.get("text") if "text" in a else a["message"]["content"] for a in answers]
    return texts, [a["meta_info"]["finish_reason"] if "meta_info" in a else a["finish_reason"] for a in answers]


def ask_all(server: Server) -> dict[str, Answer]:
    with ThreadPoolExecutor(4) as threads:
        return dict(zip(EDGES, threads.map(lambda request: ask(server, request), EDGES.values()), strict=True))
