"""The section of a report: JSON-able, rendered, and null with a reason."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sglang_hetero_spec.bench.errors import BenchError
from sglang_hetero_spec.bench.speed_model import section as module
from sglang_hetero_spec.bench.speed_model.__main__ import main
from sglang_hetero_spec.bench.speed_model.render import render_markdown, tables
from sglang_hetero_spec.bench.speed_model.section import section
from tests.bench.speed_model.made_up import MadeUp


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DRAWS", 4)


def test_whole(tmp_path: Path) -> None:
    found = section(MadeUp(arms=("none", "hetero", "standalone", "hetero-random"), noise=0.02).write(tmp_path))
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["fit"]["forwards"]["largest_error"] == 0
    assert found["check"]["summary"]["setting"]["predicted"] == 15
    assert found["expect"]["left_out"] == []
    text = render_markdown(found)
    assert "each setting in turn" in text
    assert "158" in text
    assert "never" in text
    assert all(row["why_not"] or row["most_steps"] == 4 for row in found["expect"]["rows"])
    for table in tables(found):
        assert all(len(row) == len(table.columns) for row in table.rows), table.title


def test_no_setting_left_to_hold_out(tmp_path: Path) -> None:
    found = section(MadeUp(settings=("c4",), arms=("hetero",)).write(tmp_path))
    assert found["check"]["rows"] is None
    assert found["check"]["why_not"].startswith("nothing can be held out: that takes three settings")
    assert found["expect"]["left_out"] == ["one drafter for all: the run has no arm `standalone`."]
    assert "Not checked: nothing can be held out" in render_markdown(found)


def test_arrivals_by_the_clock_only(tmp_path: Path) -> None:
    found = section(MadeUp(settings=("r3",)).write(tmp_path))
    assert found["fit"] == {"servers": None, "why_not": "no block has a fixed number of requests in flight."}
    assert "Nothing was fitted: no block has" in render_markdown(found)


def test_nothing_drafted(tmp_path: Path) -> None:
    found = section(MadeUp(arms=("none",)).write(tmp_path))
    assert found["expect"]["rows"] is None
    assert found["expect"]["why_not"] == "one drafter for all: the run has no arm `standalone`."
    assert "Not computed: one drafter for all" in render_markdown(found)


def test_no_histograms(tmp_path: Path) -> None:
    found = section(MadeUp(histograms=False).write(tmp_path))
    assert found["expect"]["rows"] is None
    assert found["check"]["rows"] is not None


def test_an_empty_run(tmp_path: Path) -> None:
    found = section(MadeUp(repetitions=0).write(tmp_path))
    assert found["fit"]["servers"] is found["check"]["rows"] is found["expect"]["rows"] is None
    render_markdown(found)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(MadeUp(settings=("c1", "c4"), arms=("none",)).write(tmp_path / "run"))
    assert main([run]) == 0
    assert capsys.readouterr().out.startswith("## Speed model")
    assert main([run, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["check"]["rows"] is None
    assert main([str(tmp_path / "none")]) == 1
    assert "metadata.json cannot be read" in capsys.readouterr().err


def test_metadata_that_is_not_a_run(tmp_path: Path) -> None:
    run = MadeUp(settings=("c1",), arms=("none",)).write(tmp_path)
    (run / "metadata.json").write_text('{"arms": [{"name": "none"}]}', encoding="utf-8")
    with pytest.raises(BenchError, match="is not the metadata of a run; run `hetero-spec bench` again"):
        section(run)
