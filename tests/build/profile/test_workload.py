"""Which prompts are sent."""

from __future__ import annotations

from collections import Counter

import pytest

from sglang_hetero_spec.build.profile.records import ProfileError
from sglang_hetero_spec.build.profile.workload import Workload, choose
from sglang_hetero_spec.build.prompts import plain_prompt


def test_the_first_of_each_task_that_fit() -> None:
    prompts = [plain_prompt(str(number), task="ab"[number % 2]) for number in range(8)] + [plain_prompt("outlier")]
    encoded = [(number,) * (9 if number == 2 else 1) for number in range(8)] + [(99,)]
    encoded[3] = "no token"  # type: ignore[call-overload]
    found = choose(prompts, encoded, num_prompts=3, room=8)
    assert found.prompts == {"a": ((0,), (4,), (6,)), "b": ((1,), (5,), (7,))}
    assert found.notes == (
        "1 prompts of task `a` are too long or have no tokens.",
        "1 prompts of task `b` are too long or have no tokens.",
    )
    with pytest.raises(ProfileError, match=r"No prompt of task `a` can be used \(at most 0 tokens fit"):
        choose(prompts, encoded, num_prompts=3, room=0)
    with pytest.raises(ProfileError, match="No prompt has a task"):
        choose(prompts[-1:], encoded[-1:], num_prompts=3, room=None)
    with pytest.raises(ProfileError, match="has the task 'a b', which is no name"):
        choose([plain_prompt("x", task="a b")], [(1,)], num_prompts=3, room=None)


def test_batches_fill_what_is_in_flight() -> None:
    work = Workload({"a": ((1,), (2,), (3,))})
    assert work.batch("a", 2) == ((1,), (2,), (3,))
    assert work.batch("a", 5) == ((1,), (2,), (3,), (1,), (2,))


def test_mixed_traffic_has_its_shares_at_every_moment() -> None:
    work = Workload({"a": tuple((n,) for n in range(6)), "b": ((10,), (11,)), "c": ((20,),) * 4})
    batches = work.mixed(1)
    assert [len(batch) for batch in batches] == [6, 6]
    equal = [item for batch in batches for item in batch]
    assert Counter(task for task, _ in equal) == {"a": 4, "b": 4, "c": 4}
    assert {task for task, _ in equal[:3]} == {"a", "b", "c"}
    assert [ids for task, ids in equal if task == "b"] == [(10,), (11,), (10,), (11,)]
    shares = {"a": 3.0, "b": 1.0}
    (mixed,) = work.mixed(40, shares)
    assert len(mixed) == 40
    for number in range(1, 41):
        count = Counter(task for task, _ in mixed[:number])
        assert abs(count["a"] - 0.75 * number) <= 1 and count["c"] == 0
