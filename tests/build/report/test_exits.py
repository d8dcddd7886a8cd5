"""The report's table of sorted drafters against the profile's counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from sglang_hetero_spec.build.profile.records import read_profile, write_profile
from sglang_hetero_spec.build.report import write_report
from sglang_hetero_spec.build.report.matrix import Profiled
from sglang_hetero_spec.build.report.view_exits import exits_views
from tests.build.assign.profiles import record
from tests.build.report.test_page import copied, parsed, rows_of, text_of

# Tokens per second follow the share of drafts that are right: by confidence pays on the first task alone.
RIGHT = {"nested-exit1": (0.4, 0.8), "nested-exit4": (0.5, 0.5), "nested-at4": (0.7, 0.6)}


@pytest.fixture(scope="module")
def folder(example: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = copied(example, tmp_path_factory.mktemp("exits") / "build")
    records = read_profile(folder / "profile.jsonl")
    tasks = list(dict.fromkeys(one.task for one in records))[:2]
    more = [
        record(name, task, 4, rate=right, concurrency=4)
        for name, rights in RIGHT.items()
        for task, right in zip(tasks, rights, strict=True)
    ]
    write_profile(folder / "profile.jsonl", [*records, *more])
    return folder


def test_each_task_has_the_fastest_of_both_kinds(folder: Path) -> None:
    (view,) = exits_views(Profiled(read_profile(folder / "profile.jsonl"), None).matrix())
    assert view.drafter == "nested"
    assert [(row.fixed, row.adaptive, row.pays) for row in view.rows] == [
        ("nested-exit4", "nested-at4", True),
        ("nested-exit1", "nested-at4", False),
    ]


def test_the_page_has_them(folder: Path) -> None:
    page = parsed(write_report(folder).path)
    assert "It pays on 1 of 2 tasks." in text_of(page)
    rows = rows_of(page, "Exits of nested")
    assert [row[1] for row in rows] == ["nested-exit4", "nested-exit1"]
    assert [row[-1][0] for row in rows] == ["+", "-"]
