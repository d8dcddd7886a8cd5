from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from sglang_hetero_spec.build.profile.mixed import CostTable, mixed_seconds_per_token
from sglang_hetero_spec.build.profile.model import NO_DRAFTER, Candidate, SpeedModel, shorter_chains
from sglang_hetero_spec.build.profile.records import ProfileRecord, Settings
from tests.build.assign.profiles import random_profile, record


def test_a_measured_point_is_reproduced() -> None:
    for seed in range(30):
        records = random_profile(np.random.default_rng(seed), concurrency=4)
        model = SpeedModel(records)
        for item in records:
            cell = model.cell(Candidate(item.drafter, item.settings), item.task, 4)
            assert cell is not None
            assert cell.tokens_per_second == pytest.approx(item.tokens_per_second, rel=1e-12)
            assert cell.accept_length == item.accept_length


def test_clocks_that_add_up_to_more_than_the_walls_do_not_count_twice() -> None:
    item = record("d", "a", 3)
    overlapping = _changed(item, seconds=0.5 * (item.draft_seconds + item.verify_seconds))
    cell = SpeedModel([record("none", "a", 0, draft=0.0), overlapping]).cell(Candidate("d", item.settings), "a", 1)
    assert cell is not None
    assert cell.tokens_per_second == pytest.approx(overlapping.tokens_per_second, rel=1e-12)


def test_between_two_concurrencies_it_is_linear_and_outside_unknown() -> None:
    records = [record("none", "a", 0, draft=0.0, verify=0.03 + 0.01 * c, concurrency=c) for c in (2, 4)]
    model = SpeedModel(records)
    cell = model.cell(NO_DRAFTER, "a", 3)
    assert cell is not None
    assert cell.verify_seconds == pytest.approx(0.06)
    assert model.cell(NO_DRAFTER, "a", 1) is None and model.cell(NO_DRAFTER, "a", 5) is None
    assert model.default_concurrency() == 4
    assert model.tokens_per_request("a") == 64


def test_draft_seconds_of_smaller_batches_are_sane_whatever_was_measured() -> None:
    """Never less than their share of the largest batch's, never more than it; the noise of seed does not matter."""
    for seed in range(50):
        rng = np.random.default_rng(seed)
        records = [record("none", "a", 0, draft=0.0, concurrency=c, requests=16) for c in (1, 2, 4, 8)]
        records += [
            record("d", "a", 3, draft=float(rng.uniform(0.001, 0.02)), concurrency=c, requests=16) for c in (1, 2, 4, 8)
        ]
        model = SpeedModel(records)
        curve = model.draft_curve(Candidate("d", Settings(3, 1, 4)), "a", 8)
        assert curve.shape == (9,) and curve[0] == 0
        assert (np.diff(curve) >= -1e-15).all()
        share = curve[1:] / np.arange(1, 9)
        assert (np.diff(share) <= 1e-15).all()
        assert curve[8] == pytest.approx(records[-1].draft_seconds / records[-1].forwards)


def test_draft_seconds_follow_the_measured_concurrencies() -> None:
    records = [record("none", "a", 0, draft=0.0, concurrency=c) for c in (1, 4)]
    records += [record("d", "a", 3, draft=0.004 + 0.001 * c, concurrency=c) for c in (1, 4)]
    curve = SpeedModel(records).draft_curve(Candidate("d", Settings(3, 1, 4)), "a", 4)
    assert curve == pytest.approx([0, 0.005, 0.006, 0.007, 0.008])


def test_counts_by_position_tell_what_a_shorter_chain_accepts() -> None:
    """A simulated drafter whose positions are right independently, measured at 6 and at 2."""
    rng = np.random.default_rng(0)
    long, short = _simulated(rng, 6), _simulated(rng, 2)
    none = record("none", "a", 0, draft=0.0, requests=8, tokens=10_000)
    derived = {item.num_steps: item for item in shorter_chains([none, long])}
    assert sorted(derived) == [1, 2, 3, 4, 5]
    assert derived[2].accept_length == pytest.approx(short.accept_length, rel=0.01)
    assert derived[2].verify_steps == pytest.approx(short.verify_steps, rel=0.01)
    assert derived[2].draft_seconds / derived[2].forwards == pytest.approx(0.004)
    assert derived[2].verify_seconds / derived[2].forwards == pytest.approx(0.03 + 2 / 6 * 0.006)
    assert derived[2].tokens_per_second == pytest.approx(short.tokens_per_second, rel=0.02)


def test_what_was_measured_is_not_derived() -> None:
    records = [record("none", "a", 0, draft=0.0), record("d", "a", 2), record("d", "a", 4)]
    assert [item.num_steps for item in shorter_chains(records)] == [1, 3]
    assert shorter_chains(records[1:]) == ()
    mode = {"slem": (), "tli": (1, 2, 3)}  # a shorter text is no shorter chain
    for vocab, lengths in mode.items():
        derived = shorter_chains([records[0], dataclasses.replace(record("d", "a", 4), vocab=vocab)])
        assert tuple(item.num_steps for item in derived) == lengths
        assert all(item.vocab == vocab for item in derived)
    tree = record("d", "a", 3, topk=2, num_draft_tokens=8)
    assert shorter_chains([records[0], tree]) == ()


def _simulated(rng: np.random.Generator, num_steps: int, rate: float = 0.75) -> ProfileRecord:
    tokens, steps, right = 80_000, 0, np.zeros(num_steps, dtype=int)
    produced = 0
    while produced < tokens:
        correct = int(np.argmin(np.append(rng.random(num_steps) < rate, False)))
        right[:correct] += 1
        steps += 1
        produced += correct + 1
    forwards = steps
    draft, verify = 0.002 * num_steps * forwards, (0.03 + 0.001 * num_steps) * forwards
    return ProfileRecord(
        drafter="d",
        task="a",
        num_steps=num_steps,
        topk=1,
        num_draft_tokens=num_steps + 1,
        concurrency=1,
        requests=8,
        verify_steps=steps,
        proposed_drafts=steps * num_steps,
        correct_by_position=tuple(right.tolist()),
        completion_tokens=produced,
        draft_seconds=draft,
        verify_seconds=verify,
        seconds=draft + verify,
        verify_forwards=forwards,
    )


def test_apart_is_a_bound_of_mixed_and_equal_where_it_must_be() -> None:
    for seed in range(200):
        rng = np.random.default_rng(seed)
        table = _random_table(rng, concurrency=int(rng.integers(1, 9)))
        choices = rng.integers(0, 4, size=(50, 5))
        apart = (table.weights * table.apart[np.arange(5), choices]).sum(axis=1)
        mixed = mixed_seconds_per_token(table, choices)
        assert (mixed >= apart * (1 - 1e-12)).all()
        same = np.repeat(np.arange(4)[:, None], 5, axis=1)
        expected = (table.weights[:, None] * table.apart).sum(axis=0)
        if table.concurrency == 1:
            assert mixed == pytest.approx(apart, rel=1e-12)
        assert mixed_seconds_per_token(table, same) == pytest.approx(expected, rel=1e-12)


def test_a_fixed_width_makes_everyone_pay_for_the_widest() -> None:
    rng = np.random.default_rng(1)
    table = _random_table(rng, concurrency=1)
    fixed = CostTable(table.weights, table.forwards, table.verify, table.other, table.draft, fixed_width=True)
    choices = np.array([[0, 1, 2, 3, 0]])
    assert mixed_seconds_per_token(fixed, choices)[0] > mixed_seconds_per_token(table, choices)[0]


def _random_table(rng: np.random.Generator, concurrency: int) -> CostTable:
    first = rng.uniform(0, 0.01, (5, 4, 1))
    slope = rng.uniform(0, 0.002, (5, 4, 1))
    draft = first + slope * np.arange(concurrency + 1)
    draft[:, :, 0] = 0
    weights = rng.dirichlet(np.ones(5))
    forwards, verify, other = (rng.uniform(0.1, 1, (5, 4)) for _ in range(3))
    return CostTable(weights, forwards, verify, other, draft)


def _changed(item: ProfileRecord, **changes: object) -> ProfileRecord:
    from dataclasses import asdict

    return ProfileRecord(**asdict(item) | changes)
