"""Done-when 6: what makes a run uncitable is seen, and said in one sentence; the same run without it is citable."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sglang_hetero_spec.bench.errors import BenchError
from sglang_hetero_spec.bench.results import check, finish
from sglang_hetero_spec.bench.results.citable import reasons
from sglang_hetero_spec.bench.results.run_files import read_run
from tests.bench.made_up import Shape, edit_blocks, edit_metadata, edit_requests, only, write_run

SMALL = Shape(arms=("none", "standalone", "hetero"), num_prompts=4, tokens=12)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that may be cited, finished."""
    folder = write_run(tmp_path_factory.mktemp("good") / "run", SMALL)
    assert finish(folder).why_not == []
    return folder


@pytest.fixture
def run(good: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "run"))


def set_to(*keys: str, value: Any) -> Callable[[Path], None]:
    def break_it(folder: Path) -> None:
        def edit(metadata: dict[str, Any]) -> None:
            for key in keys[:-1]:
                metadata = metadata[key]
            metadata[keys[-1]] = value

        edit_metadata(folder, edit)

    return break_it


def without(keep: Callable[[Any], bool], blocks: bool = True) -> Callable[[Path], None]:
    def break_it(folder: Path) -> None:
        edit_requests(folder, lambda row: row if keep(row) else None)
        if blocks:
            edit_blocks(folder, lambda row: row if keep(row) else None)

    return break_it


def changed(arm: str, **changes: Any) -> Callable[[Path], None]:
    return lambda folder: edit_requests(folder, only(arm, **changes))


def other_output(folder: Path) -> None:
    """One token of one answer."""

    def edit(row: Any) -> Any:
        if (row.arm, row.prompt, row.repetition, row.setting) != ("hetero", 2, 1, "c4"):
            return row
        return replace(row, output_ids=[*row.output_ids[:-1], row.output_ids[-1] + 1])

    edit_requests(folder, edit)


TAMPERED = {
    "a dirty tree": (set_to("clean_tree", value=False), "not committed (a dirty tree)"),
    "a tree of unknown state": (set_to("clean_tree", value=None), "not known whether the code had changes"),
    "no commit": (set_to("commit", value=None), "The commit of the code is not known."),
    "a stubbed engine": (set_to("engine", "kind", value="stub"), "not SGLang (engine.kind is 'stub')"),
    "an unknown engine": (set_to("engine", value={}), "not SGLang (engine.kind is not given)"),
    "no evidence of servers": (set_to("engine", "servers", value={}), "No server is on record."),
    "a server without a version": (
        set_to("engine", "servers", "hetero", "version", value=None),
        "Server hetero did not",
    ),
    "a stub's version": (set_to("engine", "servers", "hetero", "version", value="stub"), "which version of SGLang"),
    "two versions": (set_to("engine", "servers", "hetero", "version", value="0.5.24"), "0.5.23, 0.5.24"),
    "a server of no model": (set_to("engine", "servers", "none", "model_path", value=None), "which model it serves"),
    "an arm's server gone": (lambda f: edit_metadata(f, lambda m: m["engine"]["servers"].pop("none")), "server of arm"),
    "no hash of the target": (set_to("target", "weights_sha256", value=None), "The SHA-256 of the target's weights"),
    "no hash of the prompts": (set_to("workload", "sha256", value="?"), "The SHA-256 of the workload"),
    "no hash of the pool": (set_to("pool", value=None), "The SHA-256 of the pool's manifest"),
    "no machine": (set_to("machine", value=None), "The machine is not described."),
    "two machines": (set_to("machine", value=[{"processor": "a"}, {"processor": "b"}]), "different machines"),
    "not complete": (set_to("complete", value=False), "did not come to its end"),
    "too few repetitions": (without(lambda row: row.repetition < 2), "At least 3 whole repetitions are needed"),
    "fewer than were promised": (set_to("repetitions", value=4), "At least 4 whole repetitions are needed"),
    "a missing arm": (without(lambda row: row.arm != "standalone"), "Arm standalone has no requests."),
    "the baseline missing": (without(lambda row: row.arm != "none"), "The baseline none was not measured."),
    "an arm unasked for": (
        set_to("arms", value=[{"name": "none", "server": "none"}]),
        "Arm hetero has requests, but metadata.json",
    ),
    "an arm missing in a setting": (
        without(lambda row: (row.arm, row.setting) != ("hetero", "c4")),
        "Arm hetero has no requests in setting c4.",
    ),
    "a missing setting": (without(lambda row: row.setting == "c1"), "Setting c4 has no requests."),
    "a missing request": (
        without(lambda row: (row.arm, row.setting, row.repetition, getattr(row, "prompt", 0)) != ("none", "c1", 1, 3)),
        "Block none, c1, repetition 1 has not every prompt exactly once.",
    ),
    "a missing block": (
        lambda folder: edit_blocks(folder, lambda row: None if row.order == 0 else row),
        "Block none, c1, repetition 0 is not in blocks.jsonl.",
    ),
    "a block twice": (
        lambda folder: edit_blocks(folder, lambda row: replace(row, arm="none", repetition=0, setting="c1")),
        "Block none, c1, repetition 0 is on record 18 times.",
    ),
    "an aborted answer": (changed("hetero", finish="abort"), "1 request was not answered to the end"),
    "a differing output": (other_output, "The output of arm hetero is not that of none (1 of its 24 answers"),
    "outputs not recorded": (changed("hetero", output_ids=[]), "was not compared with that of none in every answer"),
    "sampling": (set_to("workload", "temperature", value=0.7), "At temperature 0.7 the output cannot be compared"),
    "more drafts accepted": (changed("hetero", correct=99, proposed=100), "99 correct drafts and"),
    "fewer steps": (changed("hetero", verify_steps=1), "1 verify steps and"),
    "more tokens": (changed("hetero", completion_tokens=100), "100 completion tokens and 12 token ids"),
    "first token after the last": (changed("hetero", ttft=99.0), "its first token came after its last byte"),
    "quicker blocks": (
        lambda folder: edit_blocks(
            folder, lambda row: replace(row, seconds=0.5 * row.seconds) if row.arm == "hetero" else row
        ),
        "s after its block",
    ),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_what_makes_a_run_uncitable_is_said(run: Path, name: str) -> None:
    break_it, words = TAMPERED[name]
    break_it(run)
    why_not = reasons(read_run(run))
    assert len([reason for reason in why_not if words in reason]) == 1, why_not
    assert all(reason.endswith(".") and "\n" not in reason for reason in why_not)


def test_the_verdict_stands_in_every_file(run: Path) -> None:
    set_to("clean_tree", value=False)(run)
    finished = finish(run)
    assert not finished.citable
    found = json.loads((run / "aggregate.json").read_text())
    assert (found["citable"], found["why_not"]) == (False, finished.why_not)
    assert "**Not citable:**" in (run / "summary.md").read_text()
    assert "<b>Not citable:</b>" in (run / "report.html").read_text()


def test_a_good_run_is_citable_and_stays_so_when_checked(run: Path) -> None:
    before = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    checked = check(run)
    assert (checked.citable, checked.why_not) == (True, [])
    assert {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()} == before


EDITED = {
    "a request's time": lambda f: edit_requests(f, only("hetero", ttft=0.0001)),
    "a block's time": lambda f: edit_blocks(
        f, lambda row: replace(row, seconds=2 * row.seconds) if row.arm == "none" else row
    ),
    "a note in metadata.json": lambda f: edit_metadata(f, lambda m: m["target"].update(note="a 70B target")),
    "a file of differences": lambda f: (f / "differences.jsonl").write_text(""),
}


@pytest.mark.parametrize("name", EDITED)
def test_records_edited_afterwards_are_seen(run: Path, name: str) -> None:
    EDITED[name](run)
    checked = check(run)
    assert not checked.citable
    assert any("its SHA-256 differs" in reason for reason in checked.why_not), checked.why_not


def test_a_figure_edited_in_the_aggregate_is_seen(run: Path) -> None:
    path = run / "aggregate.json"
    found = json.loads(path.read_text())
    found["settings"]["c4"]["ratios"]["hetero/none"]["all"]["server_tokens_per_second"]["value"] *= 1.01
    path.write_text(json.dumps(found))
    place = "settings.c4.ratios.hetero/none.all.server_tokens_per_second.value"
    assert check(run).why_not == [
        f"aggregate.json does not follow from the records (the first difference is at {place})."
    ]


def test_a_verdict_edited_in_the_aggregate_is_seen(run: Path) -> None:
    path = run / "aggregate.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"citable": False, "why_not": ["It rained."]}))
    assert any("verdict" in reason for reason in check(run).why_not)


def test_an_edited_summary_is_seen(run: Path) -> None:
    path = run / "summary.md"
    path.write_text(path.read_text().replace("1.", "2."))
    assert check(run).why_not == ["summary.md does not follow from the records."]


def test_a_run_that_was_not_finished_is_refused_in_one_sentence(run: Path) -> None:
    (run / "aggregate.json").unlink()
    with pytest.raises(BenchError, match=r"aggregate.json is missing"):
        check(run)
    (run / "metadata.json").write_text('{"format": "other"}')
    with pytest.raises(BenchError, match="schema_version 1; give the folder"):
        finish(run)
