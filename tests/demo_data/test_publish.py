"""What is copied from a built pool, and what made.json says of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sglang_hetero_spec.build.layout import Layout
from sglang_hetero_spec.demo.publish import publish


def align(correct: int, tasks: tuple[str, ...]) -> dict:
    counts = {"correct_by_position": [correct, 0], "proposed_drafts": 20, "completion_tokens": 15, "verify_steps": 10}
    return {
        "versions": {"torch": "2"},
        "seconds": {"training": 1.5},
        "heldout": {task: {"before": {}, "after": counts} for task in tasks},
    }


@pytest.fixture
def built(tmp_path: Path) -> Path:
    layout = Layout(tmp_path / "built")
    for name, correct, tasks in (("general", 4, ("sql", "json")), ("sql", 8, ("sql",)), ("json", 6, ("json",))):
        layout.drafter(name).mkdir(parents=True)
        (layout.drafter(name) / "align.json").write_text(json.dumps(align(correct, tasks)))
        (layout.pool / "drafters" / name).mkdir(parents=True)
        (layout.pool / "drafters" / name / "model.safetensors").write_text(name)
    (layout.pool / "router").mkdir()
    (layout.pool / "router" / "router.json").write_text("{}")
    (layout.pool / "report.html").write_text("")
    (layout.pool / "tasks.json").write_text("[]")
    manifest = {"target": {"name_or_path": "t"}, "tasks": [{"id": task, "name": task} for task in ("sql", "json")]}
    (layout.pool / "pool.json").write_text(json.dumps(manifest))
    return layout.pool


def test_it_copies_what_is_served_and_says_how_it_was_made(built: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "pool" / "old").mkdir(parents=True)
    made = publish(built, out, {"recipe": {"seed": 0}})
    assert sorted(path.name for path in (out / "pool").iterdir()) == ["drafters", "pool.json", "router", "tasks.json"]
    assert (out / "pool" / "drafters" / "sql" / "model.safetensors").read_text() == "sql"
    manifest = json.loads((out / "pool" / "pool.json").read_text())
    assert manifest["target"]["name_or_path"] == "../target"
    assert [task["name"] for task in manifest["tasks"]] == ["SQL", "sentences to JSON"]
    assert made == json.loads((out / "made.json").read_text()) and made["recipe"] == {"seed": 0}
    assert made["seconds"] == {"general": 1.5, "sql": 1.5, "json": 1.5}
    rates = {task: (row["task"]["accept_rate"], row["general"]["accept_rate"]) for task, row in made["heldout"].items()}
    assert rates == {"sql": (0.4, 0.2), "json": (0.3, 0.2)}
    assert made["heldout"]["sql"]["task"]["accept_length"] == 1.5
