"""The assignment against one found by looking at every choice (profiles.py), and what must hold of any."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sglang_hetero_spec.build.assign.assignment import AssignError, Assignment, assign
from sglang_hetero_spec.build.assign.enumerate import enumerated
from sglang_hetero_spec.build.assign.ilp import integer_program
from sglang_hetero_spec.build.assign.problem import Budget, build_problem
from sglang_hetero_spec.build.assign.search import solve
from sglang_hetero_spec.build.profile.model import SpeedModel
from sglang_hetero_spec.build.profile.records import ProfileError, ProfileRecord
from tests.build.assign.profiles import NOBODY, brute_force, every_choice, mixed_by_slots, random_profile, record


def named(assignment: Assignment) -> tuple[tuple[str, tuple[int, int, int]], ...]:
    return tuple((task.drafter, tuple(task.candidate.settings)) for task in assignment.tasks)


def random_budget(rng: np.random.Generator, records: list[ProfileRecord]) -> dict[str, object]:
    names = sorted({item.drafter for item in records} - {"none"})
    memory = {name: int(rng.integers(1, 10**9)) for name in names}
    budget: dict[str, object] = {}
    if rng.random() < 0.6:
        budget["max_drafters"] = int(rng.integers(0, 4))
    if rng.random() < 0.6:
        budget |= {"max_memory": int(rng.integers(0, 2 * 10**9)), "memory": memory}
    return budget


def test_it_equals_the_brute_force_optimum_on_1000_random_profiles() -> None:
    speculated = 0
    for seed in range(1000):
        rng = np.random.default_rng(seed)
        records = random_profile(rng)
        tasks = list(dict.fromkeys(item.task for item in records))
        traffic = {task: float(rng.integers(1, 20)) for task in tasks}
        budget = random_budget(rng, records)
        found = assign(records, traffic=traffic, **budget)  # type: ignore[arg-type]
        speed, choice = brute_force(records, traffic, **budget)
        assert found.expected.tokens_per_second == pytest.approx(speed, rel=1e-9), f"seed {seed}"
        assert found.proven
        assert named(found) == choice, f"seed {seed}"
        speculated += found.speculates
    assert 200 < speculated < 1000, "both kinds of answer occur"


def test_enumeration_and_integer_program_are_equal() -> None:
    for seed in range(150):
        rng = np.random.default_rng(10_000 + seed)
        records = random_profile(rng, max_tasks=7, max_drafters=6)
        limits = random_budget(rng, records)
        memory = limits.pop("memory", None)
        problem = build_problem(SpeedModel(records), memory=memory, budget=Budget(**limits))  # type: ignore[arg-type]
        by_hand, by_solver = enumerated(problem), integer_program(problem)
        assert problem.seconds_apart(by_solver) == pytest.approx(problem.seconds_apart(by_hand), rel=1e-9)
        assert problem.fits(by_solver) and problem.fits(by_hand)


def test_a_limit_of_memory_holds_to_the_byte() -> None:
    """The solver alone would allow a millionth more."""
    records = [record("none", task, 0, draft=0.0) for task in ("a", "b")]
    records += [record("one", task, 3, rate=0.9 if task == "a" else 0.1) for task in ("a", "b")]
    records += [record("two", task, 3, rate=0.9 if task == "b" else 0.1) for task in ("a", "b")]
    memory = {"one": 10**9, "two": 10**9}
    for limit, size in ((2 * 10**9, 2), (2 * 10**9 - 1, 1)):
        budget = Budget(max_memory=limit)
        problem = build_problem(SpeedModel(records), memory=memory, budget=budget)
        assert len(set(integer_program(problem)) - {0}) == len(set(enumerated(problem)) - {0}) == size


def test_with_two_drafters_the_best_pair_is_found() -> None:
    """The best single drafter is in no best pair: greedy choice would fail."""
    tasks = ("a", "b", "c", "d")
    good = {
        "all": (0.7, 0.7, 0.7, 0.7),
        "ab": (0.9, 0.9, 0.1, 0.1),
        "cd": (0.1, 0.1, 0.9, 0.9),
        "bc": (0.2, 0.8, 0.8, 0),
    }
    records = [record("none", task, 0, draft=0.0) for task in tasks]
    for name, rates in good.items():
        records += [record(name, task, 4, rate=rate) for task, rate in zip(tasks, rates, strict=True)]
    one, two = assign(records, max_drafters=1), assign(records, max_drafters=2)
    assert set(one.drafter_of_task.values()) == {"all"}
    assert two.drafter_of_task == {"a": "ab", "b": "ab", "c": "cd", "d": "cd"}
    assert two.best_single.drafter == "all"
    assert two.expected.gain_over_best_single > 1
    assert two.expected.gain_over_none == pytest.approx(
        two.expected.tokens_per_second / two.expected.none_tokens_per_second
    )


def test_none_wins_where_speculation_loses() -> None:
    records = [record("none", "a", 0, draft=0.0, verify=0.03), record("none", "b", 0, draft=0.0, verify=0.03)]
    records += [record("d", "a", 3, rate=0.9), record("d", "b", 3, rate=0.05, draft=0.02)]
    assert assign(records).drafter_of_task == {"a": "d", "b": "none"}
    assert assign(records, max_drafters=0).drafter_of_task == {"a": "none", "b": "none"}
    only_bad = assign(
        [item for item in records if item.drafter == "none" or item.task == "b"], traffic={"a": 1, "b": 1}
    )
    assert (only_bad.fallback_drafter, only_bad.expected.gain_over_none) == ("none", 1.0)


@pytest.mark.parametrize("concurrency", [1, 4])
@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), rate=st.floats(0, 0.99), draft=st.floats(0, 0.2), limit=st.integers(0, 4))
def test_one_drafter_more_never_lowers_the_result(
    concurrency: int, seed: int, rate: float, draft: float, limit: int
) -> None:
    rng = np.random.default_rng(seed)
    records = random_profile(rng, max_drafters=3, concurrency=concurrency)
    tasks = list(dict.fromkeys(item.task for item in records))
    extra = [record("extra", task, 3, rate=rate, draft=draft, concurrency=concurrency) for task in tasks]
    before = assign(records, max_drafters=limit)
    after = assign([*extra, *records], max_drafters=limit)
    assert after.expected.tokens_per_second >= before.expected.tokens_per_second * (1 - 1e-9)
    assert before.expected.gain_over_none >= 1 - 1e-9
    assert before.expected.gain_over_best_single >= 1 - 1e-9


def two_level(seed: int) -> list[ProfileRecord]:
    """A profile at concurrency 1 and 2 whose small batches are not dearer than the large ones."""
    rng = np.random.default_rng(seed)
    records = []
    for item in random_profile(rng, max_tasks=3, max_drafters=3):
        for concurrency in (1, 2):
            draft = item.draft_seconds / item.forwards * (0.7 if concurrency == 1 else 1)
            verify = item.verify_seconds / item.forwards * (0.8 if concurrency == 1 else 1)
            rate = item.correct_by_position[0] / item.verify_steps if item.num_steps else 0.0
            tokens = item.completion_tokens // item.requests
            records.append(
                record(
                    item.drafter,
                    item.task,
                    item.num_steps,
                    rate=rate,
                    draft=draft,
                    verify=verify,
                    other=0.01,
                    tokens=tokens,
                    concurrency=concurrency,
                )
            )
    return records


def test_the_mix_equals_batch_steps_enumerated_slot_by_slot() -> None:
    several = 0
    for seed in range(60):
        records = two_level(seed)
        best = max((mixed_by_slots(records, choice, 2), choice) for _, choice in every_choice_at_two(records))
        found = assign(records, concurrency=2)
        assert found.expected.tokens_per_second == pytest.approx(best[0], rel=1e-9), f"seed {seed}"
        assert found.proven
        several += len({task.drafter for task in found.tasks}) > 1
    assert several > 5


def every_choice_at_two(records: list[ProfileRecord]) -> list[tuple[list[str], tuple]]:
    return list(every_choice([item for item in records if item.concurrency == 2]))


def test_in_a_full_batch_one_drafter_may_beat_two_better_ones() -> None:
    """Two drafters in a batch cost two draft forwards."""
    records = []
    for concurrency in (1, 8):
        records += [record("none", task, 0, draft=0.0, concurrency=concurrency) for task in ("a", "b")]
        for name, rates in {"both": (0.75, 0.75), "a": (0.8, 0.3), "b": (0.3, 0.8)}.items():
            records += [
                record(name, task, 3, rate=rate, draft=0.01, concurrency=concurrency)
                for task, rate in zip("ab", rates, strict=True)
            ]
    assert set(assign(records, concurrency=1).drafter_of_task.values()) == {"a", "b"}
    assert set(assign(records, concurrency=8).drafter_of_task.values()) == {"both"}


def test_a_search_that_is_cut_off_says_so() -> None:
    rng = np.random.default_rng(3)
    records = random_profile(rng, max_tasks=8, max_drafters=8, concurrency=8)
    problem = build_problem(SpeedModel(records))
    full, cut = solve(problem), solve(problem, max_choices=1)
    assert full.proven and full.seconds <= cut.seconds
    assert cut.bound <= full.seconds
    assert cut.proven or "cut off" in cut.method


def test_a_task_without_traffic_gets_what_is_there_anyway() -> None:
    records = [record("none", task, 0, draft=0.0) for task in ("a", "b")]
    records += [record("d", "a", 3, rate=0.9), record("d", "b", 3, rate=0.8)]
    records += [record("e", "a", 3, rate=0.1), record("e", "b", 3, rate=0.95)]
    assert assign(records, traffic={"a": 1, "b": 0}).drafter_of_task == {"a": "d", "b": "d"}


def test_an_unmeasured_pair_is_never_chosen() -> None:
    records = [record("none", task, 0, draft=0.0) for task in ("a", "b")] + [record("d", "a", 3, rate=0.9)]
    found = assign(records, traffic={"a": 0, "b": 1})
    assert named(found)[1] == NOBODY
    assert found.left_out == ("d (3/1/4) on b",)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"traffic": {"a": 1, "x": 1}}, "`x`, which was not profiled"),
        ({"traffic": {}}, "leaves out `a`"),
        ({"traffic": {"a": 0}}, "at least one above 0"),
        ({"traffic": {"a": float("nan")}}, "at least one above 0"),
        ({"max_memory": 5}, "the bytes of each drafter, `d` too"),
        ({"max_drafters": -1}, "a pool of -1 drafters"),
        ({"concurrency": 9}, "concurrency 9 lies outside"),
    ],
)
def test_bad_arguments_are_one_sentence(arguments: dict[str, object], words: str) -> None:
    records = [record("none", "a", 0, draft=0.0), record("d", "a", 3)]
    with pytest.raises(AssignError, match=words):
        assign(records, **arguments)  # type: ignore[arg-type]


def test_a_profile_without_none_is_refused() -> None:
    with pytest.raises(ProfileError, match="no record of `none` on task `a`"):
        assign([record("d", "a", 3)])
