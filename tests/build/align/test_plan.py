from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from sglang_hetero_spec.build.align.plan import budgets, make_plan

LENGTHS = [5 + (7 * i) % 40 for i in range(60)]


def test_a_plan_is_a_function_of_its_seed() -> None:
    groups, budget = [range(30), range(30, 60)], [2000, 2000]
    one = make_plan(groups, LENGTHS, budget, 128, 0)
    assert one == make_plan(groups, LENGTHS, budget, 128, 0)
    assert one != make_plan(groups, LENGTHS, budget, 128, 1)


@given(st.integers(1, 4000), st.integers(20, 400), st.integers(0, 5))
def test_the_budget_is_met_and_batches_fit(budget: int, batch_tokens: int, seed: int) -> None:
    plan = make_plan([range(60)], LENGTHS, [budget], batch_tokens, seed)
    rows = [row for batch in plan.batches for row in batch]
    assert budget <= plan.tokens[-1] == sum(LENGTHS[row] for row in rows) < budget + max(LENGTHS)
    assert all(len(b) == 1 or len(b) * max(LENGTHS[row] for row in b) <= batch_tokens for b in plan.batches)
    seen = Counter(rows)
    assert max(seen.values()) - min(seen[row] for row in range(60)) <= 1  # epoch after epoch


def test_groups_are_mixed_all_along() -> None:
    plan = make_plan([range(30), range(30, 60)], [10] * 60, [30_000, 3_000], 40, 0)
    halves = len(plan.batches) // 2
    small = [
        sum(row >= 30 for batch in half for row in batch) for half in (plan.batches[:halves], plan.batches[halves:])
    ]
    assert min(small) > 0.7 * max(small)


def test_the_general_drafter_gets_what_the_others_get_together() -> None:
    assert budgets([100, 300], [False, False], None, 3.0) == [300, 900]
    assert budgets([100, 300], [False, False], 50, 3.0) == [50, 50]
    with_outliers = budgets([100, 300, 50], [False, False, True], 1000, 3.0)
    assert sum(with_outliers) == 2000
    assert with_outliers[0] == with_outliers[1] > with_outliers[2] > 0
    assert budgets([100], [True], 50, 3.0) == [50]
