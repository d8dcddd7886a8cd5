"""Thresholds for a sorted drafter: the replay against speculation token by token, and the choice in made-up worlds."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from sglang_hetero_spec.build.profile.records import ProfileError, ProfileRecord
from sglang_hetero_spec.build.profile.thresholds import Costs, Replay, SeenAnswer, choose_thresholds, measured_costs

COSTS = Costs(verify=10.0, segments=(1.0, 1.0, 2.0))


def world(seed: int, right: tuple[float, ...] = (0.4, 0.6, 0.8), informed: bool = True) -> list[SeenAnswer]:
    """An exit that is sure is right, one that is not is wrong, or (not `informed`) sureness says nothing."""
    rng = np.random.default_rng(seed)
    answers = []
    for length in (40, 1, 0, 77):
        hits = rng.random((3, length)) < np.reshape(right, (3, 1))
        spread = rng.random((3, length)) * 0.4
        answers.append(SeenAnswer(np.where(hits & informed, 0.55, 0.1) + spread, hits))
    return answers


def by_hand(answers: list[SeenAnswer], thresholds: tuple[float, ...], costs: Costs, num_steps: int) -> float:
    """One request, draft by draft: what each exit that is passed costs, and what is right until the first wrong one."""
    columns = np.concatenate([answer.confidences for answer in answers], axis=1).T
    steps, seconds, start, tokens = 0, 0.0, 0, len(columns)
    for answer in answers:
        at, end = start, start + answer.hits.shape[1]
        while at < end:
            steps, seconds = steps + 1, seconds + costs.verify
            standing, right, correct = 1.0, True, 0
            for place in range(at, at + num_steps):
                column = columns[min(place, tokens - 1)]
                exit, seconds = 0, seconds + costs.segments[0]
                while exit < 2 and (thresholds[exit] >= 1 or (1 - column[exit]) * standing > 1 - thresholds[exit]):
                    seconds += costs.segments[exit + 1] + (costs.look if thresholds[exit] < 1 else 0.0)
                    exit += 1
                standing *= column[exit]
                right = right and place < end and bool(answer.hits[exit, place - start])
                correct += right
            at += correct + 1
        start = end
    return tokens / seconds


@pytest.mark.parametrize("thresholds", list(itertools.product((0.0, 0.3, 0.5, 1.0), repeat=2)))
@pytest.mark.parametrize("num_steps", [1, 4])
def test_replay(thresholds: tuple[float, ...], num_steps: int) -> None:
    answers, costs = world(1), replace(COSTS, look=0.7)
    assert Replay(answers, costs, num_steps).speed(thresholds) == pytest.approx(
        by_hand(answers, thresholds, costs, num_steps)
    )


def test_an_exit_that_nothing_leaves_at_is_not_looked_at() -> None:
    answers = world(1)
    looked, free = (Replay(answers, replace(COSTS, look=look), 4) for look in (5.0, 0.0))
    assert looked.speed((1.0, 1.0)) == free.speed((1.0, 1.0)) == free.fixed(2)
    assert looked.speed((0.999, 1.0)) < free.speed((0.999, 1.0))


def test_behind_a_doubtful_draft_less_sureness_suffices() -> None:
    """The second draft is left at the first exit only where the first one was doubtful."""
    for first, tokens_left_early in ((0.5, 1), (0.99, 0)):
        seen = SeenAnswer(np.array([[first, 0.7]] * 2), np.ones((2, 2), bool))
        replay = Replay([seen], Costs(0.0, (0.0, 1.0)), 2)
        seconds = 2 / replay.speed((0.8,))
        assert seconds == pytest.approx((first < 0.8) + 1 - tokens_left_early)


def test_it_leaves_where_it_is_sure() -> None:
    """Sureness tells right from wrong: thresholds lie between, and beat every fixed exit."""
    chosen = choose_thresholds(world(2), COSTS, 4)
    # The first draft of a chain may well be held to more than the later ones, whose limit is lower.
    assert all(0.4 < threshold <= 0.65 for threshold in chosen.thresholds), chosen
    assert chosen.tokens_per_second > max(chosen.fixed)


def test_nothing_is_as_good_as_the_best_fixed_exit_where_sureness_says_nothing() -> None:
    for costs in (Costs(10.0, (1.0, 1.0, 2.0)), Costs(0.5, (1.0, 1.0, 2.0)), Costs(1000.0, (1.0, 1.0, 2.0))):
        chosen = choose_thresholds(world(3, informed=False), costs, 4)
        assert chosen.tokens_per_second >= max(chosen.fixed)


def test_a_dearer_target_is_worth_deeper_drafts() -> None:
    """One drafter, two targets: the thresholds differ."""
    rng = np.random.default_rng(0)
    confidences = rng.random((2, 500))
    hits = np.vstack([rng.random(500) < confidences[0], np.ones(500, bool)])
    answers = [SeenAnswer(confidences, hits)]
    cheap, dear = (choose_thresholds(answers, Costs(verify, (1.0, 3.0)), 4).thresholds[0] for verify in (2.0, 200.0))
    assert cheap < dear - 0.2


def test_a_batch_pays_for_its_deepest_request() -> None:
    answers = world(4)
    alone, many = (Replay(answers, replace(COSTS, batch=batch), 1).speed((0.5, 0.5)) for batch in (1.0, 16.0))
    all_layers = Replay(answers, replace(COSTS, segments=(4.0, 0.0, 0.0)), 1).speed((0.5, 0.5))
    assert alone > many
    assert many == pytest.approx(all_layers, rel=0.01)


def test_fixed_exits_need_no_thresholds() -> None:
    answers = [SeenAnswer(answer.confidences[:1], answer.hits[:1]) for answer in world(5)]
    assert choose_thresholds(answers, Costs(1.0, (1.0,)), 3).thresholds == ()


def test_answers_of_one_token_say_nothing() -> None:
    with pytest.raises(ProfileError, match="longer answers"):
        choose_thresholds([SeenAnswer(np.zeros((2, 0)), np.zeros((2, 0), bool))], Costs(1.0, (1.0, 1.0)), 3)


def record(drafter: str, draft_seconds: float, **changes: object) -> ProfileRecord:
    fields = {
        "drafter": drafter, "task": "t", "num_steps": 4, "topk": 1, "num_draft_tokens": 5, "concurrency": 2,
        "requests": 4, "verify_steps": 20, "proposed_drafts": 80, "correct_by_position": (10, 5, 2, 1),
        "completion_tokens": 42, "draft_seconds": draft_seconds, "verify_seconds": 2.0, "seconds": draft_seconds + 3.0,
        "verify_forwards": 10,
    }  # fmt: skip
    return ProfileRecord(**{**fields, **changes})


def test_costs_are_measured_on_fixed_exits() -> None:
    records = [record("a", 0.4), record("b", 1.2), record("b", 1.2, task="u"), record("b", 9.0, concurrency=1)]
    costs = measured_costs(records, ["a", "b"], 4, 2)
    assert costs.segments == pytest.approx((0.01, 0.02))
    assert costs.verify == pytest.approx(0.3) and costs.batch == pytest.approx(2.0)
    with pytest.raises(ProfileError, match="`c` was not measured"):
        measured_costs(records, ["a", "c"], 4, 2)
