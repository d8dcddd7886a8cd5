"""Two runs of the same thing agree; one that is slower than its intervals allow does not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sglang_hetero_spec.bench.errors import BenchError
from sglang_hetero_spec.bench.results.aggregate import aggregate
from sglang_hetero_spec.bench.results.agree import agreement
from sglang_hetero_spec.bench.results.finish import rounded
from sglang_hetero_spec.bench.results.run_files import read_run
from tests.bench.made_up import Shape, write_run

RATIO = "tokens/s of the server, hetero/none"


def finished(folder: Path, seed: int = 0, **ratio: Any) -> Path:
    """Only its aggregate.json; `ratio`: what its one ratio is instead."""
    shape = Shape(arms=("none", "hetero"), settings=("c1",), num_prompts=4, tokens=16, seed=seed)
    found = rounded(aggregate(read_run(write_run(folder, shape))))
    found["settings"]["c1"]["ratios"]["hetero/none"]["all"]["server_tokens_per_second"] |= ratio
    (folder / "aggregate.json").write_text(json.dumps(found))
    return folder


@pytest.mark.parametrize(
    ("second", "agrees"),
    [
        ({"value": 2.0, "low": 1.9, "high": 2.1}, True),
        ({"value": 2.2, "low": 2.0, "high": 2.4}, True),  # ln 1.1 is less than the root of ln(1.05)^2 + ln(1.1)^2
        ({"value": 2.3, "low": 2.2, "high": 2.4}, False),
        ({"value": 1.8, "low": 1.78, "high": 1.82}, False),
        ({"value": 2.2, "low": None, "high": None}, None),
        ({"value": None, "low": None, "high": None}, None),
    ],
)
def test_two_runs_agree_within_both_intervals(tmp_path: Path, second: dict[str, Any], agrees: bool | None) -> None:
    one = finished(tmp_path / "one", value=2.0, low=1.9, high=2.1)
    other = finished(tmp_path / "other", **second)
    for pair in (agreement(one, other), agreement(other, one)):
        assert {item.name: item.agrees for item in pair}[RATIO] is agrees


def test_accept_lengths_are_compared_too(tmp_path: Path) -> None:
    pairs = agreement(finished(tmp_path / "one"), finished(tmp_path / "other"))
    lengths = next(pair for pair in pairs if pair.name == "accept length, hetero")
    assert lengths.first == lengths.second and lengths.agrees is True
    assert next(pair for pair in pairs if pair.name == "accept length, none").agrees is None


def test_a_run_that_was_not_finished_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"aggregate.json is missing"):
        agreement(tmp_path, tmp_path)
