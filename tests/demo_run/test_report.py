"""The whole report, printed and as JSON, from canned results and the pool that ships."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sglang_hetero_spec.demo.costly import CostlyTarget
from sglang_hetero_spec.demo.machine import Machine
from sglang_hetero_spec.demo.options import DemoOptions
from sglang_hetero_spec.demo.run import Outcome, _print, as_dict
from sglang_hetero_spec.demo.shipped import Prompt
from sglang_hetero_spec.demo.summary import Results
from sglang_hetero_spec.pool import DrafterSpec, Pool, TargetSpec, TaskSpec
from tests.demo_run.canned import passes

GENERAL = DrafterSpec("general", "standalone", Path("/p/g"), "shared", num_steps=4, topk=1, num_draft_tokens=5)
POOL = Pool(Path("/p"), TargetSpec(), (GENERAL,), (TaskSpec("sql", "SQL queries", "general"),), "general", None)
COSTLY = CostlyTarget(Path("/t"), num_params=299_000_000, source_params=4_700_000, layers=8, intermediate=48_000)


@pytest.fixture
def outcome() -> Outcome:
    return Outcome(
        options=DemoOptions(device="cpu", dtype="float32", threads=2),
        machine=Machine("Some CPU", 2, 2, "cpu", "float32", 7.5, "3.11", "2.14", "0.5.23"),
        pool=POOL,
        prompts=[Prompt("SELECT what?", "sql"), Prompt("def what?", "code")],
        costly=COSTLY,
        num_params=COSTLY.num_params,
        results=Results(passes()),
        seconds=222.0,
    )


def test_everything_is_said(outcome: Outcome, capsys: pytest.CaptureFixture[str]) -> None:
    _print(outcome)
    said = " ".join(capsys.readouterr().out.split())
    for words in (
        "SQL queries sql 0.900 4.00 2.00",
        "completion tokens / verify steps",
        "4.7M parameters, made as costly as one of 299M without changing its function (identity blocks:",
        "Some CPU, 2 cores, 8 GB free; engine in float32 with 2 threads; SGLang 0.5.23",
        "SELECT what?",
        "answer 0",
        "Done in 3.7 minutes.",
    ):
        assert words in said


def test_everything_is_in_the_json(outcome: Outcome) -> None:
    found = json.loads(json.dumps(as_dict(outcome), allow_nan=False))
    assert (found["format"], found["schema_version"]) == ("sglang_hetero_spec.demo", 1)
    assert found["target"]["cost_raised"] and "identity blocks" in found["target"]["note"]
    assert found["machine"]["threads"] == 2 and found["options"]["concurrency"] == [4]
    assert found["samples"][0] == {"task": "sql", "prompt": "SELECT what?", "answer": "answer 0", "drafter": "sql"}
    assert found["definitions"]["accept_length"].startswith("completion tokens / verify steps")
