"""Requests at the edge, and clients that go away: as without speculation, and nothing stays behind."""

from __future__ import annotations

import time

import pytest

from tests.server.edge_cases import EDGES, EMPTY, Answer, ask
from tests.support.routed_pool import DRAFTERS, prompt_of
from tests.support.servers import Server


@pytest.mark.parametrize("name", EDGES)
def test_answered_as_without_speculation(server: Server, plain: tuple[dict[str, Answer], list[str]], name: str) -> None:
    assert ask(server, EDGES[name]) == plain[0][name]


@pytest.mark.parametrize("name", EMPTY)
def test_a_text_of_no_tokens_is_refused(server: Server, name: str) -> None:
    """Without speculation SGLang 0.5.23 serves it where the tokenizer adds a token, and dies of it where none does."""
    answer = ask(server, EMPTY[name])
    assert answer.status == 400 and "no tokens" in str(answer.error)
    assert server.generate("next", sampling_params={"max_new_tokens": 2})["meta_info"]["completion_tokens"] == 2


def test_the_edges_are_both_served_and_refused(plain: tuple[dict[str, Answer], list[str]]) -> None:
    statuses = [answer.status for answer in plain[0].values()]
    assert statuses.count(200) > 10 and statuses.count(400) > 8


@pytest.mark.parametrize("drafter", DRAFTERS)
def test_a_client_that_disconnects_leaves_nothing(server: Server, drafter: str) -> None:
    server.flush_cache()
    params = {"max_new_tokens": 400, "ignore_eos": True, "custom_params": {"hetero": {"drafter": drafter}}}
    streams = [
        server.stream("/generate", {"text": prompt_of("sums", number), "sampling_params": params})
        for number in range(3)
    ]
    for stream in streams:
        next(stream)
    assert server.load()["num_running_reqs"] > 0
    for stream in streams:
        stream.close()
    load = idle_load(server)
    assert (load["num_running_reqs"], load["num_waiting_reqs"], load["num_used_tokens"]) == (0, 0, 0)
    server.flush_cache()
    assert server.is_alive()


def test_an_abort_leaves_nothing(server: Server) -> None:
    stream = server.stream("/generate", {"text": "hello", "rid": "mine", "sampling_params": {"max_new_tokens": 400}})
    next(stream)
    server.post("/abort_request", {"rid": "mine"}).raise_for_status()
    *_, last = stream
    assert last["meta_info"]["finish_reason"]["type"] == "abort" and last["meta_info"]["hetero"]["drafter"]
    assert idle_load(server)["num_used_tokens"] == 0


def idle_load(server: Server, seconds: float = 20) -> dict:
    """The scheduler's counts once it has nothing to do, or after `seconds`."""
    deadline = time.monotonic() + seconds
    load = server.load()
    while load["num_running_reqs"] and time.monotonic() < deadline:
        time.sleep(0.1)
        load = server.load()
    return load
