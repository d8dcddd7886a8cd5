"""A base and its adapters in a real server: whose drafts are right, what is said of it, and what comes and goes."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from tests.lora.conftest import NUM_STEPS, RIGHT, SPARE, TREE_STEPS, WRONG, Adapted
from tests.support.servers import Server

TOKENS = 48
PROMPTS = [f"Adapter {number} of {number * number} says: " + "abc " * (number % 7) for number in range(24)]


def request(drafter: str | None, tokens: int = TOKENS, **params: object) -> dict:
    custom = {} if drafter is None else {"custom_params": {"hetero": {"drafter": drafter}}}
    return {"sampling_params": {"temperature": 0, "max_new_tokens": tokens, "ignore_eos": True, **params, **custom}}


def accept_length(answers: list[dict]) -> float:
    tokens = sum(answer["meta_info"]["completion_tokens"] for answer in answers)
    return tokens / sum(answer["meta_info"]["spec_verify_ct"] for answer in answers)


@pytest.fixture(scope="module")
def plain(running: Server) -> list[list[int]]:
    return [answer["output_ids"] for answer in running.generate_all(PROMPTS, **request("off"))]


def test_mixed_with_every_kind_the_output_is_the_targets_and_the_right_adapter_is_right(
    server: Server, plain: list[list[int]]
) -> None:
    turns = (RIGHT, *WRONG, "right-tree", "base", "other", "off")
    drafters = [turns[number % len(turns)] for number in range(len(PROMPTS))]
    answers = server.generate_all(PROMPTS, concurrency=16, each=[request(name) for name in drafters])
    assert [answer["output_ids"] for answer in answers] == plain
    by_name = {name: [a for a, d in zip(answers, drafters, strict=True) if d == name] for name in turns}
    lengths = {name: accept_length(found) for name, found in by_name.items()}
    full = TOKENS / -(-(TOKENS - 1) // (NUM_STEPS + 1))
    assert lengths[RIGHT] == pytest.approx(full, rel=0.04), lengths
    assert lengths["right-tree"] == pytest.approx(TOKENS / -(-(TOKENS - 1) // (TREE_STEPS + 1)), rel=0.04), lengths
    assert max(lengths[name] for name in (*WRONG, "base")) < 0.7 * full, lengths


def test_adapters_share_no_cached_prefix_and_are_as_right_as_alone(server: Server) -> None:
    """A slot of a shared prefix has the keys of one adapter only."""
    prompt = PROMPTS[3] * 4
    cached = {}
    for name in (WRONG[0], "base", RIGHT, WRONG[1], RIGHT, "other"):
        answer = server.generate(prompt, **request(name))
        cached.setdefault(name, []).append(answer["meta_info"]["cached_tokens"] > len(prompt) // 2)
        if name == RIGHT:
            assert accept_length([answer]) > 0.9 * (NUM_STEPS + 1)
    assert cached == {WRONG[0]: [False], "base": [False], RIGHT: [False, True], WRONG[1]: [False], "other": [True]}


def test_two_adapters_of_one_base_are_no_pair(server: Server) -> None:
    for pair in ([RIGHT, WRONG[0]], ["base", RIGHT]):
        body = {"text": "hello", "sampling_params": {"custom_params": {"hetero": {"drafters": pair}}}}
        response = server.post("/generate", body)
        assert response.status_code == 400 and "with one model" in response.text
    pair = {
        "sampling_params": {
            "temperature": 0,
            "max_new_tokens": 8,
            "custom_params": {"hetero": {"drafters": [RIGHT, "other"]}},
        }
    }
    alone = server.generate("hello", **request("off", 8))
    assert server.generate("hello", **pair)["output_ids"] == alone["output_ids"]


def load(server: Server, name: str, path: object) -> requests.Response:
    return server.post("/load_lora_adapter", {"lora_name": name, "lora_path": str(path)})


def unload(server: Server, name: str) -> requests.Response:
    return server.post("/unload_lora_adapter", {"lora_name": name})


def test_adapters_come_and_go_under_load_and_no_request_is_lost(
    server: Server, adapted: Adapted, plain: list[list[int]]
) -> None:
    stop, answers = threading.Event(), []
    lock = threading.Lock()

    def keep_asking(first: int) -> None:
        number = first
        while not stop.is_set():
            name = (RIGHT, WRONG[0], "base", "other", "off")[number % 5]
            place = number % len(PROMPTS)
            answer = server.generate(PROMPTS[place], **request(name))
            with lock:
                answers.append((name, place, answer))
            number += 3

    names = [f"new-{number}" for number in range(4)]
    with ThreadPoolExecutor(8) as threads:
        jobs = [threads.submit(keep_asking, first) for first in range(6)]
        try:
            for number, name in enumerate(names):
                assert load(server, name, adapted.adapters[(RIGHT, SPARE)[number % 2]]).json()["success"]
                mine = [threads.submit(server.generate, PROMPTS[5], **request(name)) for _ in range(2)]
                if number % 2:
                    time.sleep(0.05)  # unloaded while they run, or before they do
                else:
                    found = [job.result() for job in mine]
                    assert all(answer["meta_info"]["hetero"]["drafter"] == name for answer in found)
                    assert accept_length(found) > 0.9 * (NUM_STEPS + 1)
                gone = unload(server, name)
                assert gone.status_code == 200 and name not in gone.json()["loaded_adapters"]
                with lock:
                    answers += [(name, 5, job.result()) for job in mine if _is_served(job)]
        finally:
            stop.set()
        for job in jobs:
            job.result()
    assert len(answers) > 20
    for name, place, answer in answers:
        assert answer["output_ids"] == plain[place], name
    right = [answer for name, _, answer in answers if name == RIGHT]
    assert accept_length(right) > 0.85 * (NUM_STEPS + 1)
    for name in names:
        response = server.post("/generate", {"text": "x", **request(name)})
        assert response.status_code == 400 and f"`{name}`" in response.text and RIGHT in response.text


def _is_served(job) -> bool:
    """A request that came after its adapter had gone is refused with the names that there are."""
    error = job.exception()
    if error is None:
        return True
    assert isinstance(error, requests.HTTPError) and error.response.status_code == 400
    return False


def test_a_long_request_outlives_its_adapter(server: Server, adapted: Adapted) -> None:
    want = server.generate("outlive", **request("off", 400))["output_ids"]
    assert load(server, "brief", adapted.adapters[SPARE]).ok
    with ThreadPoolExecutor(1) as thread:
        job = thread.submit(server.generate, "outlive", **request("brief", 400))
        deadline = time.monotonic() + 60
        while server.load()["num_running_reqs"] == 0 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert unload(server, "brief").ok
        answer = job.result()
    assert answer["output_ids"] == want
    assert load(server, "brief", adapted.adapters[RIGHT]).ok, "the name is free again"
    assert accept_length([server.generate("outlive", **request("brief"))]) > 0.9 * (NUM_STEPS + 1)
    assert unload(server, "brief").ok


def test_n_samples_of_one_prompt_share_an_adapter(server: Server) -> None:
    found = server.generate("several", **request(RIGHT, 16, n=3))
    assert len({tuple(answer["output_ids"]) for answer in found}) == 1
    assert {answer["meta_info"]["hetero"]["drafter"] for answer in found} == {RIGHT}


def test_what_cannot_be_loaded_is_refused_in_one_sentence(server: Server, adapted: Adapted, tmp_path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    good = adapted.adapters[SPARE]
    refused = [
        (load(server, RIGHT, good), "which is a drafter already"),
        (load(server, "a b", good), "`lora_name` is"),
        (load(server, "new", tmp_path / "nowhere"), "which is no folder on the server"),
        (load(server, "new", empty), "which has no adapter_config.json"),
        (unload(server, "new"), "which is no adapter of this pool"),
        (unload(server, "base"), "which is no adapter of this pool"),
    ]
    for response, words in refused:
        assert response.status_code == 400 and words in response.json()["error_message"], response.text
    assert server.is_alive()


def test_a_task_goes_to_the_base_once_its_adapter_is_unloaded(server: Server, adapted: Adapted) -> None:
    body = {"sampling_params": {"max_new_tokens": 4, "custom_params": {"hetero": {"task": "sums"}}}}
    assert server.generate("a", **body)["meta_info"]["hetero"]["drafter"] == RIGHT
    assert unload(server, RIGHT).ok
    try:
        assert server.generate("a", **body)["meta_info"]["hetero"]["drafter"] == "base"
    finally:
        assert load(server, RIGHT, adapted.adapters[RIGHT]).ok
    assert accept_length([server.generate("outlive", **request(RIGHT))]) > 0.9 * (NUM_STEPS + 1)


def test_metrics_count_an_adapter_under_its_name(server: Server, adapted: Adapted) -> None:
    assert load(server, "counted", adapted.adapters[RIGHT]).ok
    server.generate("count me", **request("counted", 12))
    assert unload(server, "counted").ok
    assert 'sglang:hetero_accept_tokens_total{drafter="counted"}' in server.get("/metrics").text
