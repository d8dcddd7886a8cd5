"""Which kind serves which task, out of a profile."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from sglang_hetero_spec.build.profile.records import ProfileRecord, write_profile
from sglang_hetero_spec.demo.why import reasons, why_table
from sglang_hetero_spec.pool import DrafterSpec, Pool, TargetSpec, TaskSpec
from tests.build.assign.profiles import record


def pool_in(root: Path) -> Pool:
    def drafter(name: str, kind: str) -> DrafterSpec:
        steps = 0 if kind == "none" else 4
        return DrafterSpec(name, kind, None, "shared", steps, 1, steps + 1)

    kinds = {"off": "none", "small": "standalone", "large": "standalone", "copies": "ngram", "never": "lora"}
    tasks = (TaskSpec("sql", "SQL", "small"), TaskSpec("code", "Code", "copies"))
    drafters = tuple(drafter(name, kind) for name, kind in kinds.items())
    return Pool(root, TargetSpec(), drafters, tasks, "small", None)


def measured() -> list[ProfileRecord]:
    """On both tasks `large` is the quickest; `never` was not measured."""
    rates = {"small": 0.6, "large": 0.9, "copies": 0.5}
    found = [record("none", task, 0) for task in ("sql", "code")]
    return found + [record(name, task, 4, rate=rate) for name, rate in rates.items() for task in ("sql", "code")]


def test_the_best_of_every_kind_and_the_one_that_serves(tmp_path: Path) -> None:
    write_profile(tmp_path / "profile.jsonl", measured())
    sql, code = reasons(pool_in(tmp_path))
    assert (sql.drafter, sql.kind, code.drafter, code.kind) == ("small", "standalone", "copies", "ngram")
    assert {kind: figure.drafter for kind, figure in sql.of_kind.items()} == {
        "none": "off",
        "standalone": "small",
        "ngram": "copies",
    }
    assert code.of_kind["standalone"].drafter == "large"
    assert code.of_kind["standalone"].tokens_per_second > sql.of_kind["standalone"].tokens_per_second


def test_a_reader_sees_every_kind(tmp_path: Path) -> None:
    write_profile(tmp_path / "profile.jsonl", measured())
    out = Console(width=160, record=True, file=(tmp_path / "out").open("w"))
    out.print(why_table(reasons(pool_in(tmp_path)), {"sql": "[bold]SQL"}))
    text = out.export_text()
    assert "ngram" in text and "none" in text and "lora" not in text
    row = next(line for line in text.splitlines() if "[bold]SQL" in line)
    assert "small" in row and row.count("(") == 3


def test_without_a_profile_nothing_is_said(tmp_path: Path) -> None:
    assert reasons(pool_in(tmp_path)) == ()
