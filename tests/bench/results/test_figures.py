"""Figures of few records, each computed by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sglang_hetero_spec.bench.records import BlockRecord, RequestRecord
from sglang_hetero_spec.bench.results.aggregate import aggregate
from sglang_hetero_spec.bench.results.columns import columns
from sglang_hetero_spec.bench.results.finish import rounded
from sglang_hetero_spec.bench.results.latency import gaps_of, latencies
from sglang_hetero_spec.bench.results.run_files import Run
from sglang_hetero_spec.bench.results.steps import draft_share_of, step_figures
from sglang_hetero_spec.bench.results.tally import by_position, figures

BLOCK = BlockRecord("a", "c1", 0, 0, 10.0, None, None, None, None, None, None, None, None, None, None)


def request(**changes: Any) -> RequestRecord:
    values = {
        "arm": "a", "setting": "c1", "repetition": 0, "prompt": 0, "task": "t", "prompt_tokens": 5,
        "completion_tokens": 4, "start": 0.0, "seconds": 2.0, "ttft": 0.5, "chunks": [(0.5, 1), (2.0, 4)],
        "verify_steps": 2, "proposed": 6, "correct": 2, "histogram": [1, 0, 1], "drafter": "d", "confidence": None,
        "source": None, "output_ids": [1, 2, 3, 4], "finish": "length",
    }  # fmt: skip
    return RequestRecord(**(values | changes))


def run_of(requests: list[RequestRecord], blocks: list[BlockRecord], **metadata: Any) -> Run:
    meta = {"baseline": "none", "workload": {"temperature": 0}} | metadata
    return Run(Path(), meta, tuple(requests), tuple(blocks), None, {})


def test_sums_come_before_quotients() -> None:
    """4 tokens in 2 steps and 96 in 10: 100 / 12, not the mean of 2 and 9.6."""
    found = figures(columns([request(), request(prompt=1, completion_tokens=96, verify_steps=10, seconds=8.0)]), 0)
    assert found["accept_length"]["value"] == pytest.approx(100 / 12)
    assert found["accept_rate"]["value"] == pytest.approx(4 / 12)
    assert found["request_tokens_per_second"]["value"] == pytest.approx(100 / 10)
    assert (found["requests"], found["completion_tokens"], found["verify_steps"]) == (2, 100, 12)


def test_each_repetition_stands_beside_the_whole() -> None:
    rows = [request(), request(repetition=1, seconds=4.0), request(repetition=2, seconds=1.0)]
    speed = figures(columns(rows), 0)["request_tokens_per_second"]
    assert speed["by_repetition"] == pytest.approx([2.0, 1.0, 4.0])
    assert speed["value"] == pytest.approx(12 / 7)
    assert speed["low"] is None, "one prompt says nothing of others"


def test_by_position_is_conditional() -> None:
    """10 steps: 4 found none, 3 one, 1 two, 2 three. Reached: 10, 6, 3, 2."""
    rows = columns([request(histogram=[4, 3, 0, 2]), request(histogram=[0, 0, 1])])
    assert by_position(rows) == [
        {"position": 1, "steps": 10, "correct": 6, "rate": 0.6},
        {"position": 2, "steps": 6, "correct": 3, "rate": 0.5},
        {"position": 3, "steps": 3, "correct": 2, "rate": pytest.approx(2 / 3)},
    ]


def test_a_position_that_no_step_reached_is_left_out() -> None:
    assert by_position(columns([request(histogram=[5, 0, 0])])) == [
        {"position": 1, "steps": 5, "correct": 0, "rate": 0.0}
    ]
    assert by_position(columns([request(histogram=[0, 0])])) == []


def test_what_one_request_does_not_say_is_null_for_all() -> None:
    unknown = {"verify_steps": None, "proposed": None, "correct": None, "histogram": None, "ttft": None}
    found = figures(columns([request(), request(prompt=1, **unknown)]), 0)
    for name in ("accept_length", "accept_rate"):
        assert found[name] == {"value": None, "low": None, "high": None, "by_repetition": []}
    assert found["verify_steps"] is None and found["accept_rate_by_position"] is None
    assert found["ttft"]["p50"]["value"] is None
    assert found["request_tokens_per_second"]["value"] == pytest.approx(2.0)


def test_no_verify_step_is_null_and_not_zero() -> None:
    found = figures(columns([request(verify_steps=0, proposed=0, correct=0, histogram=[])]), 0)
    assert found["accept_length"]["value"] is None and found["accept_rate"]["value"] is None
    assert found["verify_steps"] == 0 and found["accept_rate_by_position"] == []


def test_tokens_of_one_chunk_share_its_gap() -> None:
    """Chunks of 1, 3 and 2 tokens at 0.5, 2.0 and 3.0 s: three tokens after 0.5 s each, two after 0.5 s each."""
    row = request(chunks=[(0.2, 0), (0.5, 1), (2.0, 4), (2.5, 4), (3.0, 6)], completion_tokens=6)
    assert gaps_of(row) == [(1.5, 3), (1.0, 2)]
    found = latencies(columns([row, request(chunks=[(0.5, 1), (4.5, 2)])]), 0)
    assert found["inter_token"]["p50"]["value"] == pytest.approx(0.5)
    assert found["inter_token"]["p99"]["value"] == pytest.approx(4.0)
    assert found["chunk_gap"]["p50"]["value"] == pytest.approx(1.5)


def test_each_token_counts_once() -> None:
    """One token after 0.1 s, then three after 1 s each: half of the tokens took 1 s, half of the gaps did not."""
    found = latencies(columns([request(chunks=[(0.5, 1), (0.6, 2), (3.6, 5)], completion_tokens=5)]), 0)
    assert found["inter_token"]["p50"]["value"] == pytest.approx(1.0)


def test_one_huge_latency_is_the_p99_and_leaves_the_median() -> None:
    rows = [request(prompt=at, seconds=1.0 + at / 1000) for at in range(60)]
    found = latencies(columns([*rows, request(prompt=60, seconds=1e6)]), 0)["latency"]
    assert found["p99"]["value"] == 1e6 and found["p99"]["low"] is None
    assert found["p50"]["value"] == pytest.approx(1.030)
    assert 1.01 < found["p50"]["low"] < 1.03 < found["p50"]["high"] < 1.05


def test_an_answer_of_one_chunk_has_no_gap() -> None:
    found = latencies(columns([request(chunks=[(0.5, 4)])]), 0)
    assert found["inter_token"]["p50"] == {"value": None, "low": None, "high": None, "by_repetition": []}
    assert found["ttft"]["p50"]["value"] == 0.5


def of_block(**changes: Any) -> BlockRecord:
    return BlockRecord(**(vars(BLOCK) | changes))


def test_shares_of_a_step() -> None:
    parts = {"draft_seconds": 1.0, "target_seconds": 6.0, "host_seconds": 1.0, "forwards": 100}
    routed = {"route_seconds": 0.02, "routes": 10, "kv_bytes": 7, "kv_used_tokens": 3}
    blocks = [of_block(**parts, **routed), of_block(**{**parts, "draft_seconds": 3.0}, **routed, repetition=1)]
    found = step_figures(blocks)
    assert found["draft_share"]["value"] == pytest.approx(4 / 18)
    assert found["draft_share"]["by_repetition"] == pytest.approx([1 / 8, 3 / 10])
    assert found["host_share"]["value"] == pytest.approx(2 / 18)
    assert found["step_seconds"] == pytest.approx(18 / 200)
    assert found["route_seconds"] == pytest.approx(0.002)
    assert (found["kv_bytes"], found["kv_used_tokens"]) == (7, 3)


def test_without_one_of_its_counters_a_step_has_no_shares() -> None:
    found = step_figures([of_block(draft_seconds=1.0, target_seconds=None, host_seconds=1.0)])
    assert [found[f"{part}_share"]["value"] for part in ("draft", "target", "host")] == [None] * 3
    assert found["step_seconds"] is None and found["kv_bytes"] is None


def test_a_drafters_part_of_the_drafting() -> None:
    blocks = [of_block(drafter_seconds={"d": 1.0, "e": 2.0}), of_block(drafter_seconds={"e": 1.0})]
    assert draft_share_of("d", blocks) == 0.25
    assert draft_share_of("d", [*blocks, BLOCK]) is None


def two_arms(seconds: dict[str, list[float]], tokens: dict[str, int]) -> Run:
    """One request a block; the arm's walls are given."""
    rows, blocks = [], []
    for arm, walls in seconds.items():
        for repetition, wall in enumerate(walls):
            ids = list(range(tokens[arm]))
            rows.append(
                request(arm=arm, repetition=repetition, completion_tokens=tokens[arm], output_ids=ids, seconds=wall)
            )
            blocks.append(of_block(arm=arm, repetition=repetition, order=len(blocks), seconds=wall))
    return run_of(rows, blocks)


def test_server_speed_is_all_tokens_over_all_walls_and_its_ratio_that_of_the_quotients() -> None:
    run = two_arms({"none": [4.0, 5.0, 1.0], "hetero": [1.0, 2.0, 2.0]}, {"none": 10, "hetero": 10})
    cell = rounded(aggregate(run))["settings"]["c1"]
    assert cell["arms"]["none"]["all"]["server_tokens_per_second"]["value"] == 3.0
    ratio = cell["ratios"]["hetero/none"]["all"]["server_tokens_per_second"]
    assert ratio["value"] == pytest.approx(6 / 3)
    assert ratio["by_repetition"] == pytest.approx([4.0, 2.5, 0.5])
    assert ratio["low"] < 2 < ratio["high"]


def test_a_ratio_of_accept_lengths_needs_both() -> None:
    run = two_arms({"none": [1.0], "hetero": [1.0]}, {"none": 10, "hetero": 30})
    cell = aggregate(run)["settings"]["c1"]
    assert cell["ratios"]["hetero/none"]["all"]["accept_length"]["value"] == pytest.approx(3.0)


def test_ratios_are_of_the_prompts_that_both_served() -> None:
    rows = [request(arm="none"), request(arm="hetero", seconds=1.0), request(arm="hetero", prompt=1, seconds=99.0)]
    cell = aggregate(run_of(rows, []))["settings"]["c1"]
    assert cell["ratios"]["hetero/none"]["all"]["request_tokens_per_second"]["value"] == pytest.approx(2.0)
    assert cell["ratios"]["hetero/none"]["all"]["server_tokens_per_second"]["value"] is None, "no blocks"


def test_output_is_compared_with_the_baselines_first_answer_in_the_same_setting() -> None:
    rows = [
        request(arm="none", repetition=1, output_ids=[9, 9, 9, 9]),
        request(arm="none"),
        request(arm="none", setting="c4", output_ids=[7, 7, 7, 7]),
        request(arm="hetero"),
        request(arm="hetero", setting="c4", output_ids=[7, 7, 7, 7]),
        request(arm="ngram"),
        request(arm="ngram", prompt=5),
    ]
    found = aggregate(run_of(rows, []))["identical"]
    assert found["hetero"] == {"value": True, "compared": 2, "differing": 0, "differing_prompts": []}
    assert found["none"] == {"value": False, "compared": 3, "differing": 1, "differing_prompts": [0]}
    assert found["ngram"]["value"] is None, "prompt 5 has no answer of the baseline"


def test_a_longer_answer_is_another_one() -> None:
    rows = [request(arm="none"), request(arm="hetero", output_ids=[1, 2, 3, 4, 5], completion_tokens=5)]
    assert aggregate(run_of(rows, []))["identical"]["hetero"]["value"] is False


def test_sampled_output_is_not_compared() -> None:
    rows = [request(arm="none"), request(arm="hetero")]
    found = aggregate(run_of(rows, [], workload={"temperature": 0.7}))["identical"]["hetero"]
    assert found == {"value": None, "compared": 0, "differing": None, "differing_prompts": None}


def test_figures_by_task_and_by_drafter() -> None:
    rows = [
        request(arm="hetero", drafter="x"),
        request(arm="hetero", prompt=1, task="u", drafter="y", completion_tokens=8),
        request(arm="hetero", prompt=1, repetition=1, task="u", drafter="x"),
    ]
    cell = aggregate(run_of(rows, []))["settings"]["c1"]["arms"]["hetero"]
    assert {name: group["requests"] for name, group in cell["tasks"].items()} == {"t": 1, "u": 2}
    assert {name: group["accept_length"]["value"] for name, group in cell["drafters"].items()} == {"x": 2.0, "y": 4.0}
    assert cell["tasks"]["u"]["routes"] == {"x": 1, "y": 1}


def test_an_aggregate_is_strict_json() -> None:
    found = aggregate(two_arms({"none": [0.0], "hetero": [1.0]}, {"none": 1, "hetero": 1}))
    assert found["settings"]["c1"]["arms"]["none"]["all"]["server_tokens_per_second"]["value"] is None
    json.dumps(rounded(found), allow_nan=False)
    with pytest.raises(ValueError, match="not a finite number"):
        rounded({"x": [float("nan")]})


def test_settings_are_in_the_order_of_their_load() -> None:
    rows = [request(setting=name) for name in ("r10", "c16", "x", "c4", "r2.5")]
    assert run_of(rows, [], settings=["c4", "c1"]).settings == ("c1", "c4", "c16", "r2.5", "r10", "x")
