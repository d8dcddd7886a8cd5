"""`hetero-spec assign` and `fit-router`, from files to files."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from sglang_hetero_spec.build.assign.problem import AssignError
from sglang_hetero_spec.build.assign.result import read_assignment
from sglang_hetero_spec.build.profile.records import write_profile
from sglang_hetero_spec.build.prompts import plain_prompt, write_prompts
from sglang_hetero_spec.commands import assign, fit_router
from sglang_hetero_spec.router.predict import LinearRouter
from tests.build.assign.profiles import record
from tests.router.toy import toy_prompts

TASKS = ("code", "letters", "sums")


def run(*arguments: object) -> int:
    parser = argparse.ArgumentParser()
    subcommands = parser.add_subparsers()
    assign.add(subcommands)
    fit_router.add(subcommands)
    args = parser.parse_args([str(argument) for argument in arguments])
    return args.run(args)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    records = [record("none", task, 0, draft=0.0) for task in TASKS]
    for drafter in ("coder", "counter"):
        for task in TASKS:
            fits = {"coder": "code", "counter": "sums"}[drafter] == task
            records += [record(drafter, task, steps, rate=0.9 if fits else 0.1, draft=0.004) for steps in (3, 6)]
    write_profile(tmp_path / "profile.jsonl", records)
    texts, tasks = toy_prompts(range(20))
    prompts = [plain_prompt(text, task=task) for text, task in zip(texts, tasks, strict=True)]
    write_prompts(tmp_path / "prompts.jsonl", [*prompts, plain_prompt("an outlier")])
    return tmp_path


@pytest.fixture
def assigned(files: Path) -> Path:
    assert run("assign", "--profile", files / "profile.jsonl", "--out", files / "assignment.json") == 0
    return files


def test_assign_prints_what_it_writes(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = files / "assignment.json"
    arguments = ("assign", "--profile", files / "profile.jsonl", "--out", out)
    code = run(*arguments, "--traffic", "code=3,sums=1,letters=0.5", "--max-drafters", 1, "--json")
    printed = json.loads(capsys.readouterr().out)
    assert (code, printed) == (0, json.loads(out.read_text()))
    found = read_assignment(out)
    assert found.drafter_of_task == {"code": "coder", "letters": "none", "sums": "none"}
    assert found.budget.max_drafters == 1
    assert [path.name for path in files.glob("*.part")] == []
    assert run(*arguments, "--max-memory", "1G", "--memory", "coder=1G,counter=1M") == 0
    table = capsys.readouterr().out
    assert "coder" in table and "times no speculation" in table
    assert read_assignment(out).drafters[1].memory_bytes == 1 << 30


@pytest.mark.parametrize("traffic", ["code", "code=", "code=x", "code=-1", "code=1,code=2", "=1", "code=nan"])
def test_bad_traffic_is_refused_by_the_command_line(files: Path, traffic: str) -> None:
    with pytest.raises(SystemExit):
        run("assign", "--profile", files / "profile.jsonl", "--out", files / "x.json", "--traffic", traffic)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda raw: raw.update(extra=1), "`extra` is not a key"),
        (lambda raw: raw.pop("tasks"), "`tasks` is missing"),
        (lambda raw: raw.update(concurrency=True), "`concurrency` is true"),
        (lambda raw: raw.update(fallback_drafter="nobody"), "`fallback_drafter` is not in"),
        (lambda raw: raw["tasks"][0].update(num_steps=9), "not in `drafters` with the same settings"),
    ],
)
def test_an_assignment_is_read_strictly(assigned: Path, change: Callable[[dict], object], words: str) -> None:
    path = assigned / "assignment.json"
    raw = json.loads(path.read_text())
    change(raw)
    path.write_text(json.dumps(raw))
    with pytest.raises(AssignError, match=words):
        read_assignment(path)


def fit(files: Path, *more: object) -> int:
    names = ("prompts.jsonl", "assignment.json", "profile.jsonl")
    flags = [part for name in names for part in (f"--{name.split('.')[0]}", files / name)]
    return run("fit-router", *flags, "--out", files / "router", *more)


def test_fit_router_writes_router_and_curve(assigned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert fit(assigned, "--json") == 0
    out, err = capsys.readouterr()
    printed = json.loads(out)
    router = LinearRouter.load(assigned / "router")
    assert router.classes == TASKS
    assert router.config.thresholds.min_confidence == printed["min_confidence"]
    assert printed["num_prompts"] == 60 and printed["num_outliers"] == 1 and "1 prompts without" in err
    assert printed["cross_validated_accuracy"] > 0.9
    assert printed["chosen_tokens_per_second"] >= printed["always_routed_tokens_per_second"] * (1 - 1e-9)
    assert printed["chosen_tokens_per_second"] > printed["fallback_tokens_per_second"]
    threshold = json.loads((assigned / "router" / "threshold.json").read_text())
    assert threshold["min_confidence"] == printed["min_confidence"] and len(threshold["curve"]) == 101
    assert fit(assigned) == 0
    assert "min_confidence" in capsys.readouterr().out


def test_fit_router_takes_predicted_chains_too(files: Path) -> None:
    arguments = ("assign", "--profile", files / "profile.jsonl", "--out", files / "assignment.json")
    assert run(*arguments, "--shorter-chains") == 0
    assert fit(files) == 0


def test_prompts_and_assignment_must_belong_together(assigned: Path) -> None:
    prompts = [plain_prompt("a b", task="poems"), plain_prompt("c d", task="code")]
    write_prompts(assigned / "prompts.jsonl", prompts)
    with pytest.raises(AssignError, match="`poems`, which the assignment does not know"):
        fit(assigned)
    write_prompts(assigned / "prompts.jsonl", prompts[1:])
    with pytest.raises(AssignError, match="no prompt has the task `letters`, `sums`"):
        fit(assigned)


def test_one_task_needs_no_router_and_says_so(tmp_path: Path) -> None:
    write_profile(tmp_path / "profile.jsonl", [record("none", "code", 0, draft=0.0)])
    assert run("assign", "--profile", tmp_path / "profile.jsonl", "--out", tmp_path / "assignment.json") == 0
    write_prompts(tmp_path / "prompts.jsonl", [plain_prompt(text, task="code") for text in ("a", "b", "c")])
    with pytest.raises(AssignError, match="make the pool without a router"):
        fit(tmp_path)


def test_a_wrong_route_without_a_price_is_refused(assigned: Path) -> None:
    lines = (assigned / "profile.jsonl").read_text().splitlines()
    kept = [line for line in lines if not ('"coder"' in line and '"letters"' in line)]
    (assigned / "profile.jsonl").write_text("\n".join(kept))
    with pytest.raises(AssignError, match=r"nothing of coder \(\d/1/\d\) on task `letters`"):
        fit(assigned)
