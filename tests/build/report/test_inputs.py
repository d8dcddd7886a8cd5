"""Files that cannot be used: one sentence each; the command's exit codes."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import pytest

from sglang_hetero_spec.build.report import ReportError, write_report
from sglang_hetero_spec.build.report.inputs import read_inputs
from sglang_hetero_spec.build.report.measured import MeasuredRun, read_measured, write_measured
from sglang_hetero_spec.commands import report
from sglang_hetero_spec.errors import HeteroError

RUN = {
    "task": "sql", "arm": "hetero", "drafter": None, "run": 1, "concurrency": 4, "requests": 8,
    "completion_tokens": 100, "verify_steps": 40, "seconds": 2.0, "predicted_tokens_per_second": None,
}  # fmt: skip


def measured(tmp_path: Path, *rows: dict) -> Path:
    path = tmp_path / "measured.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_runs_come_back_as_they_were_written(tmp_path: Path) -> None:
    runs = (MeasuredRun(**RUN), MeasuredRun(**RUN | {"task": None, "arm": "standalone", "drafter": "general"}))
    write_measured(tmp_path / "m.jsonl", runs)
    assert read_measured(tmp_path / "m.jsonl") == runs
    assert [run.series for run in runs] == ["hetero", "standalone general"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"speed": 1}, "`speed` is not a key"),
        ({"seconds": 0}, "`seconds` is 0"),
        ({"seconds": "2"}, '`seconds` is "2"'),
        ({"run": True}, "`run` is true"),
        ({"arm": "eagle"}, '`arm` is "eagle"'),
        ({"arm": "standalone"}, "`drafter` names the drafter"),
        ({"drafter": "general"}, "`drafter` names the drafter"),
        ({"task": "../x"}, '`task` is "../x"'),
    ],
)
def test_a_bad_run_is_one_sentence(tmp_path: Path, change: dict, words: str) -> None:
    with pytest.raises(ReportError) as caught:
        read_measured(measured(tmp_path, RUN, RUN | change))
    message = str(caught.value)
    assert "line 2" in message
    assert words in message
    assert "\n" not in message
    assert message.endswith(".")


def test_runs_that_cannot_be_compared_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match="different concurrencies"):
        read_measured(measured(tmp_path, RUN, RUN | {"run": 2, "concurrency": 8}))
    with pytest.raises(ReportError, match="twice"):
        read_measured(measured(tmp_path, RUN, RUN))
    with pytest.raises(ReportError, match="no run"):
        read_measured(measured(tmp_path))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tasks.json", "[]"),
        ("tasks.json", "{"),
        ("tasks.json", '[{"id": "a"}, {"id": "a"}]'),
        ("tasks.json", '[{"name": "no id"}]'),
        ("tasks.json", '"tasks"'),
        ("prompts.jsonl", "{}\n"),
        ("rejects.jsonl", '{"line": "1", "reason": "", "raw": ""}\n'),
        ("profile.jsonl", "{}\n"),
        ("assignment.json", "{}"),
        ("measured.jsonl", "{}\n"),
        ("partition.json", '{"scores": 3}'),
        ("router/threshold.json", "[]"),
        ("align/sql/curve.jsonl", '{"step": 1}\n'),
        ("align/sql/align.json", '{"num_params": "many"}'),
    ],
)
def test_a_broken_file_is_one_sentence(example: Path, tmp_path: Path, name: str, content: str) -> None:
    folder = tmp_path / "build"
    shutil.copytree(example, folder)
    (folder / name).write_text(content)
    with pytest.raises(HeteroError) as caught:
        write_report(folder, tmp_path / "out.html")
    message = str(caught.value)
    assert Path(name).name in message
    assert "\n" not in message
    assert not (tmp_path / "out.html").exists()


def test_files_of_two_builds_make_no_report(example: Path, tmp_path: Path) -> None:
    folder = tmp_path / "build"
    shutil.copytree(example, folder)
    (folder / "tasks.json").write_text('[{"id": "other"}]')
    with pytest.raises(ReportError, match="files of one build"):
        read_inputs(folder)


def test_a_folder_without_tasks_and_a_place_that_cannot_be_written(example: Path, tmp_path: Path) -> None:
    with pytest.raises(ReportError, match=r"no tasks\.json"):
        write_report(tmp_path)
    with pytest.raises(ReportError, match="not a folder"):
        write_report(tmp_path / "missing")
    with pytest.raises(ReportError, match="cannot be written"):
        write_report(example, example / "tasks.json" / "report.html")


def test_a_drafter_in_training_has_its_curve_and_nan_is_no_loss(example: Path, tmp_path: Path) -> None:
    folder = tmp_path / "build"
    shutil.copytree(example, folder)
    (folder / "align" / "sql" / "align.json").unlink()
    curve = folder / "align" / "sql" / "curve.jsonl"
    point = json.loads(curve.read_text().splitlines()[1])
    curve.write_text(json.dumps(point | {"loss": float("nan")}) + "\n")
    (learned,) = (item for item in read_inputs(folder).learned if item.name == "sql")
    assert learned.made is None
    assert learned.curve[0].loss is None


def test_the_command(example: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    report.add(parser.add_subparsers())
    out = tmp_path / "r.html"
    args = parser.parse_args(["report", str(example), "--out", str(out), "--json"])
    assert args.run(args) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["report"] == str(out)
    assert found["bytes"] == out.stat().st_size
    assert {"tasks.json", "profile.jsonl", "align/sql/curve.jsonl"} <= {item["name"] for item in found["made_from"]}
