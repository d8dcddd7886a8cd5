"""Who drafts for a request, and what its response says of it."""

from __future__ import annotations

import pytest

from tests.server.conftest import GREEDY, GREEDY_PROMPTS
from tests.server.counters import read_counters
from tests.support.routed_pool import DRAFTERS, FALLBACK, TASKS, num_proposed_per_step, prompt_of
from tests.support.servers import Server
from tests.support.tiny_models import byte_tokenizer

SHORT = {"sampling_params": {"temperature": 0, "max_new_tokens": 5, "ignore_eos": True}}


def asking(override: dict, **params: object) -> dict:
    sampling = {"temperature": 0, "max_new_tokens": 24, "ignore_eos": True, **params}
    return {"sampling_params": {**sampling, "custom_params": {"hetero": override}}}


def hetero(answer: dict) -> dict:
    return answer["meta_info"]["hetero"]


def is_routed(tag: dict, task: str) -> bool:
    said = (tag["task"], tag["drafter"], tag["source"])
    return said == (task, TASKS[task], "router") and 0.5 < tag["confidence"] <= 1


def test_text_is_that_of_no_speculation(server: Server, plain: tuple) -> None:
    answers = server.generate_all(GREEDY_PROMPTS, concurrency=4, **GREEDY)
    assert [answer["text"] for answer in answers] == plain[1]
    assert {hetero(answer)["drafter"] for answer in answers} == set(DRAFTERS)


@pytest.mark.parametrize("as_ids", [False, True])
def test_the_router_sees_text_and_ids(server: Server, as_ids: bool) -> None:
    encode = byte_tokenizer().encode
    prompts = {task: encode(prompt_of(task)) if as_ids else prompt_of(task) for task in TASKS}
    for task, prompt in prompts.items():
        assert is_routed(hetero(server.generate(prompt, **SHORT)), task)
    batch = {"input_ids" if as_ids else "text": list(prompts.values()), **SHORT}
    answers = server.post("/generate", batch).json()
    assert all(is_routed(hetero(answer), task) for task, answer in zip(prompts, answers, strict=True))


@pytest.mark.parametrize("prompt", ["zq", "\x00\x01\x02", [3, 200, 9]])
def test_an_unsure_router_leaves_it_to_the_fallback(server: Server, prompt: str | list[int]) -> None:
    tag = hetero(server.generate(prompt, **SHORT))
    assert (tag["drafter"], tag["source"]) == (FALLBACK, "fallback")
    assert tag["confidence"] is None or tag["confidence"] < 0.5


@pytest.mark.parametrize("drafter", DRAFTERS)
def test_a_request_names_its_drafter(server: Server, drafter: str) -> None:
    meta = server.generate(prompt_of("sums"), **asking({"drafter": drafter}))["meta_info"]
    assert meta["hetero"] == {"task": None, "drafter": drafter, "confidence": None, "source": "request"}
    steps, width = meta["spec_verify_ct"], num_proposed_per_step(drafter)
    assert meta["spec_num_proposed_drafts"] == steps * width
    rate = meta["spec_num_correct_drafts"] / (steps * width) if width else None
    assert meta["spec_accept_rate"] == rate
    assert meta["spec_accept_length"] == 24 / steps
    assert sum(meta["spec_correct_drafts_histogram"]) == steps
    # The first token is the prefill's. A step's tokens behind the last one asked for are not given out.
    assert 0 <= meta["spec_num_correct_drafts"] + steps - 23 <= max(width, 1)
    assert meta["completion_tokens"] == 24 and not any("cap" in key for key in meta)
    if drafter == "same":
        assert (rate, steps) == (1.0, 6)
    if drafter == "off":
        assert steps == 23 and meta["spec_num_correct_drafts"] == 0


@pytest.mark.parametrize("task", TASKS)
def test_a_request_names_its_task(server: Server, task: str) -> None:
    answer = server.generate("anything", **asking({"task": task}, max_new_tokens=3))
    assert hetero(answer) == {"task": task, "drafter": TASKS[task], "confidence": None, "source": "request"}


def test_requests_of_a_batch_name_their_own(server: Server) -> None:
    params = [asking({"drafter": drafter}, max_new_tokens=8)["sampling_params"] for drafter in DRAFTERS]
    answers = server.post("/generate", {"text": ["same text"] * len(params), "sampling_params": params}).json()
    assert [hetero(answer)["drafter"] for answer in answers] == list(DRAFTERS)
    assert len({answer["text"] for answer in answers}) == 1


def test_completions_route_and_follow_overrides(server: Server) -> None:
    body = {"model": "m", "prompt": prompt_of("sums"), "max_tokens": 16, "temperature": 0, "ignore_eos": True}
    before = routed_counts(server)
    plainly = server.post("/v1/completions", body).json()
    named = server.post("/v1/completions", {**body, "custom_params": {"hetero": {"drafter": "off"}}}).json()
    by_task = server.post("/v1/completions", {**body, "custom_params": {"hetero": {"task": "letters"}}}).json()
    assert len({answer["choices"][0]["text"] for answer in (plainly, named, by_task)}) == 1
    after = routed_counts(server)
    new = {key: after[key] - before.get(key, 0) for key in after if after[key] != before.get(key, 0)}
    assert new == {("same", "router"): 1, ("off", "request"): 1, ("small", "request"): 1}


def routed_counts(server: Server) -> dict[tuple[str, str], float]:
    rows = read_counters(server).get("sglang:hetero_routed_requests_total", {})
    return {(dict(labels)["drafter"], dict(labels)["source"]): value for labels, value in rows.items()}


def chat(text: str, **fields: object) -> dict:
    messages = [{"role": "user", "content": text}]
    base = {"model": "m", "messages": messages, "max_tokens": 16, "temperature": 0, "ignore_eos": True}
    return {**base, "return_meta_info": True, **fields}


def test_chat_routes_and_follows_overrides(server: Server) -> None:
    choice = server.post("/v1/chat/completions", chat(prompt_of("code"))).json()["choices"][0]
    assert is_routed(choice["meta_info"]["hetero"], "code")
    for override, drafter in (({"drafter": "same"}, "same"), ({"task": "quiet"}, "off")):
        answer = server.post("/v1/chat/completions", chat("hi", custom_params={"hetero": override})).json()
        meta = answer["choices"][0]["meta_info"]
        assert (meta["hetero"]["drafter"], meta["hetero"]["source"]) == (drafter, "request")
        assert meta["spec_num_proposed_drafts"] == meta["spec_verify_ct"] * num_proposed_per_step(drafter)


def test_chat_reports_our_rates_in_its_token_details(server: Server) -> None:
    body = chat("hi", custom_params={"hetero": {"drafter": "same"}}, return_spec_tokens_details=True)
    answer = server.post("/v1/chat/completions", body).json()
    details, meta = answer["sglext"]["spec_tokens_details"], answer["choices"][0]["meta_info"]
    assert details["spec_num_proposed_drafts"] == meta["spec_num_proposed_drafts"] == 3 * meta["spec_verify_ct"]
    assert details["spec_accept_rate"] == meta["spec_accept_rate"] > 0.5


@pytest.mark.parametrize("max_new_tokens", [0, 1])
def test_the_route_is_reported_where_no_step_was_verified(server: Server, max_new_tokens: int) -> None:
    meta = server.generate(prompt_of("sums"), sampling_params={"max_new_tokens": max_new_tokens})["meta_info"]
    assert is_routed(meta["hetero"], "sums")
    assert not any(key.startswith("spec_") for key in meta)


def test_every_sample_of_a_prompt_reports_the_route(server: Server) -> None:
    answers = server.generate(prompt_of("code"), sampling_params={"n": 2, "max_new_tokens": 8, "temperature": 1})
    assert len(answers) == 2 and all(is_routed(hetero(answer), "code") for answer in answers)
    both = {"text": [prompt_of("sums"), prompt_of("letters")], **asking({"drafter": "small"}, n=2)}
    answers = server.post("/generate", both).json()
    assert [hetero(answer)["drafter"] for answer in answers] == ["small"] * 4


def test_the_last_chunk_of_a_stream_reports_the_route(server: Server) -> None:
    chunks = list(server.stream("/generate", {"text": prompt_of("letters"), **GREEDY}))
    assert len(chunks) > 1 and is_routed(hetero(chunks[-1]), "letters")
    assert chunks[-1]["meta_info"]["spec_num_proposed_drafts"] == 2 * chunks[-1]["meta_info"]["spec_verify_ct"]
    chunks = list(server.stream("/generate", {"text": prompt_of("letters"), **asking({"drafter": "same"}, n=2)}))
    last = {chunk["index"]: chunk for chunk in chunks if chunk["meta_info"]["finish_reason"] is not None}
    assert [hetero(last[index])["drafter"] for index in (0, 1)] == ["same", "same"]


def test_other_custom_params_travel_too(server: Server) -> None:
    params = {**asking({"drafter": "same"})["sampling_params"]}
    params["custom_params"] = {**params["custom_params"], "mine": [1, {"a": None}]}
    assert hetero(server.generate("hello", sampling_params=params))["drafter"] == "same"
    assert hetero(server.generate("hello", sampling_params={"max_new_tokens": 2, "custom_params": {"mine": 1}}))
