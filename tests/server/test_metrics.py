"""Our counters on SGLang's /metrics say the same as the responses of the requests that were sent."""

from __future__ import annotations

from tests.server.counters import read_counters, total
from tests.support.routed_pool import DRAFTERS, FALLBACK, SHAPES, TASKS, prompt_of
from tests.support.servers import Server

META_OF = {
    "sglang:hetero_verify_total": "spec_verify_ct",
    "sglang:hetero_proposed_drafts_total": "spec_num_proposed_drafts",
    "sglang:hetero_correct_drafts_total": "spec_num_correct_drafts",
}
ALL_NAMES = {
    *META_OF,
    "sglang:hetero_routed_requests_total",
    "sglang:hetero_accept_tokens_total",
    "sglang:hetero_draft_seconds_total",
    "sglang:hetero_draft_forward_seconds_total",
    "sglang:hetero_host_seconds_total",
    "sglang:hetero_verify_seconds_total",
    "sglang:hetero_verify_forwards_total",
    "sglang:hetero_route_seconds_count",
}


def test_counters_are_the_sums_of_meta_info(server: Server) -> None:
    before = read_counters(server)
    prompts = [prompt_of(task, number) for number in range(3) for task in TASKS] + ["zq"] * 4
    params = [{"max_new_tokens": 5 + 3 * n, "temperature": n % 2, "ignore_eos": True} for n in range(len(prompts))]
    for n in (1, 5, 12):
        params[n]["custom_params"] = {"hetero": {"drafter": DRAFTERS[n % 4]}}
    metas = [a["meta_info"] for a in server.generate_all(prompts, each=[{"sampling_params": p} for p in params])]
    after = read_counters(server)

    def change(name: str, **labels: str) -> float:
        return total(after, name, **labels) - total(before, name, **labels)

    for drafter in DRAFTERS:
        mine = [meta for meta in metas if meta["hetero"]["drafter"] == drafter]
        assert mine
        for name, field in META_OF.items():
            assert change(name, drafter=drafter) == sum(meta[field] for meta in mine), (name, drafter)
        correct_and_steps = sum(meta["spec_num_correct_drafts"] + meta["spec_verify_ct"] for meta in mine)
        assert change("sglang:hetero_accept_tokens_total", drafter=drafter) == correct_and_steps
        for source in ("router", "request", "fallback"):
            num = sum(meta["hetero"]["source"] == source for meta in mine)
            assert change("sglang:hetero_routed_requests_total", drafter=drafter, source=source) == num
        forward = change("sglang:hetero_draft_forward_seconds_total", drafter=drafter)
        assert 0 <= forward < change("sglang:hetero_draft_seconds_total", drafter=drafter)
        assert (forward > 0) == (drafter in SHAPES)
    steps = [meta["spec_verify_ct"] for meta in metas]
    assert max(steps) <= change("sglang:hetero_verify_forwards_total") <= sum(steps)
    assert 0 < change("sglang:hetero_host_seconds_total") < change("sglang:hetero_verify_seconds_total")
    assert change("sglang:hetero_route_seconds_count") == len(prompts)
    assert 0 < change("sglang:hetero_route_seconds_sum") < 0.1 * len(prompts)
    assert set(after) >= ALL_NAMES


def test_steps_without_drafts_are_counted_apart(server: Server) -> None:
    before = read_counters(server)
    answer = server.generate("zq", sampling_params={"max_new_tokens": 9, "frequency_penalty": 0.5, "ignore_eos": True})
    after = read_counters(server)
    meta = answer["meta_info"]
    assert (meta["hetero"]["drafter"], meta["spec_verify_ct"], meta["spec_num_proposed_drafts"]) == (FALLBACK, 8, 0)
    assert meta["spec_accept_rate"] is None
    name = "sglang:hetero_verify_total"
    nobody = {"drafter": "(none drafted)"}
    assert total(after, name, **nobody) - total(before, name, **nobody) == 8
    assert total(after, name, drafter=FALLBACK) == total(before, name, drafter=FALLBACK)
