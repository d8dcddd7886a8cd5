"""Runs with known costs: found again, and predicted where they were held out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sglang_hetero_spec.bench.speed_model.check import check, splits, summary
from sglang_hetero_spec.bench.speed_model.costs import DRAFT, TARGET, Costs
from sglang_hetero_spec.bench.speed_model.fit import fit_servers, forwards, observe
from sglang_hetero_spec.bench.speed_model.predict import predict
from sglang_hetero_spec.bench.speed_model.run_folder import read_run, settings_of
from tests.bench.speed_model.made_up import COSTS, MadeUp


def test_known_costs_are_recovered(tmp_path: Path) -> None:
    blocks = read_run(MadeUp(settings=("c1", "c4", "c8", "r3")).write(tmp_path))
    found = fit_servers(observe(blocks))["server"]
    assert set(found.parts) == set(COSTS.parts)
    for part, values in COSTS.parts.items():
        np.testing.assert_allclose(found.parts[part], values, rtol=0.02, atol=1e-7, err_msg=part)


def test_context_is_a_term_where_it_differs(tmp_path: Path) -> None:
    costs = Costs({**COSTS.parts, TARGET: np.array([0.02, 0.005, 0.001, 1e-5])})
    short = read_run(MadeUp(costs=costs, settings=("c1", "c4")).write(tmp_path / "short"))
    long = read_run(MadeUp(costs=costs, settings=("c1", "c4"), read=9).write(tmp_path / "long"))
    found = fit_servers(observe(short + long))["server"]
    np.testing.assert_allclose(found.parts[TARGET], costs.parts[TARGET], rtol=0.02)
    assert fit_servers(observe(short))["server"].parts[TARGET][3] == 0.0


def test_forwards_are_those_that_the_server_counted(tmp_path: Path) -> None:
    for block in read_run(MadeUp().write(tmp_path)):
        assert forwards(block) == block.record.forwards


def test_held_out_settings_are_predicted(tmp_path: Path) -> None:
    """Accept rates of what is held out differ by chance: as much is forgiven."""
    rows = check(read_run(MadeUp(settings=("c1", "c2", "c4", "c8", "r3"), noise=0.02).write(tmp_path)))
    assert {row.split for row in rows} == {"setting", "few settings", "arm"}
    rows = [row for row in rows if row.split != "arm" and row.predicted is not None]
    assert len(rows) == 5 * 3 - 1 + 3 * 3  # no forward has a single token but those of `none` with 1 in flight
    assert float(np.median([abs(row.error) for row in rows])) < 0.05
    assert max(abs(row.error) for row in rows) < 0.15
    latest = [abs(row.request_error) for row in rows]
    assert float(np.median(latest)) < 0.1


def test_held_out_arms_are_predicted(tmp_path: Path) -> None:
    """hetero-random has all pairs of drafter and task; `none` has no drafter at all."""
    rows = [row for row in check(read_run(MadeUp(noise=0.02).write(tmp_path))) if row.split == "arm"]
    by_arm = {row.arm: row for row in rows if row.setting == "c4"}
    assert abs(by_arm["none"].error) < 0.1
    assert abs(by_arm["hetero"].error) < 0.15
    assert by_arm["hetero-random"].predicted is None
    assert by_arm["hetero-random"].why_not == "the other blocks have no requests of drafter `code` on task `sums`."


def test_what_is_held_out_is_not_looked_at(tmp_path: Path) -> None:
    """Other seconds and other accept rates in the held-out setting change what is measured, not what is predicted."""
    plain = read_run(MadeUp().write(tmp_path / "a"))
    slow = Costs({part: 10 * values for part, values in COSTS.parts.items()})
    other = read_run(MadeUp(costs=slow, settings=("c2",)).write(tmp_path / "b"))
    spoiled = [block for block in plain if block.setting != "c2"] + other
    one = {(row.arm, row.setting): row for row in check(plain) if row.held_out == "setting c2"}
    two = {(row.arm, row.setting): row for row in check(spoiled) if row.held_out == "setting c2"}
    for key, row in one.items():
        assert two[key].predicted == row.predicted
        assert two[key].measured.tokens_per_second == pytest.approx(row.measured.tokens_per_second / 10)


def test_servers_without_counters(tmp_path: Path) -> None:
    """Only the client's clock: the sum of all parts is predicted all the same."""
    rows = check(read_run(MadeUp(counters=False, settings=("c1", "c2", "c4", "c8", "c16")).write(tmp_path)))
    errors = [abs(row.error) for row in rows if row.split == "setting" and row.error is not None]
    assert len(errors) == 14
    assert float(np.median(errors)) < 0.05
    assert max(errors) < 0.15


def test_servers_that_time_drafters_only(tmp_path: Path) -> None:
    """What they cost is found again; the rest is told together."""
    blocks = read_run(MadeUp(step_counters=False).write(tmp_path))
    found = fit_servers(observe(blocks))["server"]
    for part, values in COSTS.parts.items():
        if part.startswith(DRAFT):
            np.testing.assert_allclose(found.parts[part], values, rtol=0.02, atol=1e-7)
    errors = [abs(row.error) for row in check(blocks) if row.split == "setting" and row.error is not None]
    assert len(errors) == 11
    assert max(errors) < 0.15


def test_each_server_has_costs_of_its_own(tmp_path: Path) -> None:
    run = MadeUp(server_of={"none": "plain", "hetero": "pool", "hetero-random": "pool"})
    blocks = read_run(run.write(tmp_path))
    assert set(fit_servers(observe(blocks))) == {"plain", "pool"}
    held = [split.title for split in splits(blocks) if split.name == "arm"]
    assert held == ["arm hetero", "arm hetero-random"]


def test_what_cannot_be_predicted_says_why(tmp_path: Path) -> None:
    block = read_run(MadeUp(arms=("hetero",)).write(tmp_path))[0]
    assert predict(block, {}, {}) == "nothing was fitted of the server of arm `hetero`."
    assert "no requests of drafter `code` on task `code`" in predict(block, {"server": Costs({})}, {})


def test_single_tokens_are_not_predicted_from_many(tmp_path: Path) -> None:
    rows = check(read_run(MadeUp(repetitions=1).write(tmp_path)))
    held = {row.held_out: row.why_not for row in rows if (row.arm, row.setting) == ("none", "c1")}
    why_not = "the other blocks do not say what a forward of a single token costs."
    assert held == {"setting c1": why_not, "arm none": why_not}


def test_few_settings_hold_nothing_out(tmp_path: Path) -> None:
    blocks = read_run(MadeUp(settings=("c1", "c4"), arms=("hetero",)).write(tmp_path))
    assert splits(blocks) == []
    assert check(blocks) == []
    assert summary([]) == {}


def test_settings_are_in_order(tmp_path: Path) -> None:
    blocks = read_run(MadeUp(settings=("c16", "r2", "c1", "c4"), repetitions=1, arms=("none",)).write(tmp_path))
    assert settings_of(blocks) == ["c1", "c4", "c16", "r2"]
    few = next(split for split in splits(blocks) if split.name == "few settings")
    assert few.title == "all but c1 and c4"
    assert {block.setting for block in blocks if few.fit(block)} == {"c1", "c4"}
