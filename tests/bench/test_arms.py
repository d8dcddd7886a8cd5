"""What is compared, how it routes, and what it needs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sglang_hetero_spec.bench.arms import NAMES, Arm, plan_arms
from sglang_hetero_spec.bench.arms_file import MoreArm, read_arms_file
from sglang_hetero_spec.bench.arrivals import settings_of
from sglang_hetero_spec.bench.blocks import Journal, plan_blocks
from sglang_hetero_spec.bench.errors import BenchError
from sglang_hetero_spec.bench.ranking import costs
from sglang_hetero_spec.bench.workload import NO_TASK, Item, Workload
from sglang_hetero_spec.build.profile.records import ProfileRecord
from sglang_hetero_spec.pool import DrafterSpec, Pool, RouterSpec, TargetSpec, TaskSpec


def drafter(name: str, kind: str = "standalone", vocab: str = "shared") -> DrafterSpec:
    return DrafterSpec(name, kind, Path("/pool") / name, vocab, num_steps=3, topk=1, num_draft_tokens=4)


NOBODY = DrafterSpec("off", "none", None, "shared", 0, 1, 1)
POOL = Pool(
    Path("/pool"),
    TargetSpec(),
    (NOBODY, drafter("general"), drafter("sql"), drafter("math"), drafter("text", vocab="slem")),
    (TaskSpec("s", "SQL", "sql"), TaskSpec("m", "sums", "math"), TaskSpec("t", "text", "text")),
    "general",
    RouterSpec(Path("/pool/router"), 0.5),
)
WORK = Workload("w", tuple(Item(task, {"text": task}, 1) for task in "smt"), ())
# Seconds per token.
COSTS = {
    **{("s", "sql"): 1.0, ("s", "math"): 4.0, ("s", "general"): 2.0, ("s", "text"): 3.0, ("s", "off"): 9.0},
    **{("m", "sql"): 5.0, ("m", "math"): 1.0, ("m", "general"): 2.0, ("m", "text"): 4.0, ("m", "off"): 9.0},
    **{("t", "sql"): 6.0, ("t", "math"): 4.0, ("t", "general"): 3.0, ("t", "text"): 0.1, ("t", "off"): 9.0},
}


def arms(*names: str, pool: Pool = POOL, work: Workload = WORK, **kind: object) -> dict[str, Arm]:
    found = plan_arms(pool, work, kind.pop("costs", COSTS), names or None, **kind)  # type: ignore[arg-type]
    return {arm.name: arm for arm in found.arms}


def overrides(arm: Arm, repetition: int = 0) -> list[object]:
    return [arm.override(item, number, repetition, seed=3) for number, item in enumerate(WORK.items)]


def test_all_arms_and_who_shares_a_server() -> None:
    found = arms()
    assert list(found) == [name for name in NAMES if name != "standalone"]
    assert {name: arm.server for name, arm in found.items() if name.startswith("hetero")} == dict.fromkeys(
        ("hetero", "hetero-oracle", "hetero-random", "hetero-worst"), "hetero"
    )
    assert [arm.router for arm in found.values()] == [None, None, None, "real", "oracle", "random", "worst"]


def test_routing() -> None:
    found = arms()
    assert overrides(found["hetero"]) == overrides(found["none"]) == overrides(found["ngram"]) == [None] * 3
    assert overrides(found["standalone-best"]) == [None] * 3
    assert overrides(found["hetero-oracle"]) == [{"task": "s"}, {"task": "m"}, {"task": "t"}]
    # Of those that the router can choose, so not `off`.
    assert overrides(found["hetero-worst"]) == [{"drafter": "math"}, {"drafter": "sql"}, {"drafter": "sql"}]


def test_random_routing_is_drawn_by_request() -> None:
    arm = arms()["hetero-random"]
    assert set(arm.choices) == {"sql", "math", "text", "general"}
    assert overrides(arm) == overrides(arm)
    drawn = [arm.override(WORK.items[0], number, 0, seed=3) for number in range(200)]
    assert {one["drafter"] for one in drawn} == set(arm.choices)
    again = [arm.override(WORK.items[0], number, 1, seed=3) for number in range(200)]
    assert sum(a == b for a, b in zip(drawn, again, strict=True)) < 100


def test_the_best_single_drafter_is_that_of_the_mix() -> None:
    found = arms("standalone", "standalone-best")
    assert found["standalone-best"].drafter == "general"
    assert found["standalone-best"].server == found["standalone"].server == "standalone", "asked for by name: both"
    mostly_sql = replace(WORK, items=(*WORK.items[:1] * 9, *WORK.items[1:]))
    found = arms("standalone-best", work=mostly_sql)
    assert found["standalone-best"].drafter == "sql"
    assert "--speculative-draft-model-path /pool/sql" in " ".join(found["standalone-best"].options)
    assert arms(best="math")["standalone-best"].drafter == "math"
    assert set(arms(best="math")) >= {"standalone", "standalone-best"}


def test_where_the_prompts_have_other_tasks_all_of_the_profiles_count_alike() -> None:
    other = Workload("w", (Item("writing", {"text": "x"}, 1),), ())
    assert arms("standalone-best", work=other)["standalone-best"].drafter == "general"


def test_costs_of_the_shapes_that_the_pool_has() -> None:
    def record(steps: int, seconds: float) -> ProfileRecord:
        return ProfileRecord(
            **{"drafter": "sql", "task": "s", "num_steps": steps, "topk": 1, "num_draft_tokens": steps + 1},
            **{"concurrency": 1, "requests": 1, "verify_steps": 10, "proposed_drafts": 10 * steps},
            **{"correct_by_position": (5,) * steps, "completion_tokens": 20, "draft_seconds": 1.0},
            **{"verify_seconds": 2.0, "seconds": seconds},
        )

    assert costs(POOL, [record(3, 4.0), record(3, 6.0), record(1, 40.0)]) == {("s", "sql"): pytest.approx(0.25)}


NO_ROUTER = replace(POOL, router=None)
NO_TASKS = Workload("w", (Item(NO_TASK, {"text": "x"}, 1),), ())


@pytest.mark.parametrize(
    ("name", "kind", "said"),
    [
        ("eagle9", {}, "there is no arm `eagle9`; choose from `none`, `standalone`"),
        ("hetero", {"pool": NO_ROUTER}, "hetero needs a router, and /pool has none; run `hetero-spec fit-router`"),
        ("hetero-oracle", {"work": NO_TASKS}, r"hetero-oracle needs prompts with the pool's tasks \(`s`, `m`, `t`\)"),
        ("hetero-worst", {"work": NO_TASKS}, "give prompts with a `task`, or leave the arm out"),
        ("hetero-worst", {"costs": None}, "hetero-worst needs the pool's profile.jsonl, and /pool has none"),
        ("hetero-worst", {"costs": {("s", "sql"): 1.0}}, "has nothing on `m`, `t`"),
        ("standalone-best", {"costs": None}, "or give --standalone NAME"),
        ("standalone-best", {"costs": {}}, "name one with --standalone"),
        ("standalone-best", {"best": "nobody"}, "--standalone names the drafter `nobody`, and /pool has"),
        ("standalone-best", {"best": "text"}, "--standalone text: SGLang's STANDALONE needs a draft model with the"),
        ("standalone", {"pool": replace(POOL, fallback_drafter="off")}, "`off` is none; leave the arm out"),
    ],
)
def test_what_is_asked_for_and_cannot_be_had(name: str, kind: dict, said: str) -> None:
    with pytest.raises(BenchError, match=said) as refused:
        arms(name, **kind)
    assert "\n" not in str(refused.value)


def test_what_is_not_asked_for_and_cannot_be_had_is_left_out_and_named() -> None:
    found = plan_arms(POOL, NO_TASKS, None, None)
    assert [arm.name for arm in found.arms] == ["none", "standalone", "ngram", "hetero", "hetero-random"]
    assert [note.split()[2] for note in found.notes] == ["standalone-best", "hetero-oracle", "hetero-worst"]


ARMS_FILE = """
- {name: eagle3, title: EAGLE3, options: [--speculative-algorithm, EAGLE3, --speculative-num-steps, 3]}
- {name: other, url: "http://127.0.0.1:1"}
- {name: one, drafter: general}
"""


def test_arms_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "arms.yaml"
    path.write_text(ARMS_FILE)
    more = read_arms_file(path, NAMES)
    found = arms("eagle3", "other", "one", "hetero", more=more)
    assert found["eagle3"].options[-2:] == ("--speculative-num-steps", "3")
    assert (found["other"].url, found["other"].server) == ("http://127.0.0.1:1", "other")
    assert found["one"].server == "hetero" and overrides(found["one"]) == [{"drafter": "general"}] * 3
    assert next(iter(found)) == "none"
    with pytest.raises(BenchError, match="the arm `one` names the drafter `general`"):
        arms("one", more=[MoreArm(name="one", drafter="general")], pool=replace(POOL, drafters=(NOBODY,)))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- {name: none, url: 'http://x:1'}", "the name `none` is taken"),
        ("- {name: a}", "0: needs `options`, `url` or `drafter`"),
        ("- {name: a, url: 'http://x:1', drafter: b}", "one of them"),
        ("- {name: a, color: b, drafter: c}", "0.color: extra inputs"),
        ("name: a", "should be a valid list"),
        ("- [", "is not YAML"),
        ("- {name: a, drafter: b}\n- {name: a, drafter: c}", "the name `a` is taken"),
    ],
)
def test_arms_files_that_are_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "arms.yaml"
    path.write_text(text)
    with pytest.raises(BenchError, match=said) as refused:
        read_arms_file(path, NAMES)
    assert "\n" not in str(refused.value)
    with pytest.raises(BenchError, match="cannot be read"):
        read_arms_file(tmp_path / "none.yaml", NAMES)


def test_blocks_alternate_there_and_back() -> None:
    a, b, c = (Arm(name, name, name, name) for name in "abc")
    blocks = plan_blocks([[a, b], [c]], settings_of((1, 4), ()), 2)
    assert [block.order for block in blocks] == list(range(12))
    assert ["".join((block.arm.name, block.setting.name, str(block.repetition))) for block in blocks] == [
        *("ac10", "bc10", "ac40", "bc40", "bc11", "ac11", "bc41", "ac41"),
        *("cc10", "cc40", "cc11", "cc41"),
    ]


def test_a_block_that_was_broken_off_is_forgotten(tmp_path: Path) -> None:
    from tests.bench.test_records import BLOCK, REQUEST

    journal = Journal(tmp_path)
    journal.add_request(replace(REQUEST, arm="none", setting="r2.5", repetition=1))
    journal.add_block(BLOCK)
    journal.add_request(REQUEST)
    with (tmp_path / "requests.jsonl").open("ab") as file:
        file.write(b'{"arm": "het')
    again = Journal(tmp_path)
    assert again.done == {("none", "r2.5", 1)}
    assert [one.arm for one in again.requests()] == ["none"]
