"""`hetero-spec inspect` of drafters with a vocabulary of their own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from foreign_pool import ForeignPool, put_model

Run = Callable[..., Any]


@pytest.fixture
def foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ForeignPool:
    """One drafter by name, one by `auto`, one with the target's own vocabulary."""
    monkeypatch.setenv("HETERO_SPEC_CACHE", str(tmp_path / "cache"))
    pool = ForeignPool(tmp_path, "byt5", vocab="tli")
    for name, tokenizer in (("bytes", "bytes"), ("same", "gpt2")):
        put_model(pool.root / "drafters" / name, tokenizer)
        entry = {**pool.entry, "name": name, "path": f"drafters/{name}", "vocab": "auto"}
        pool.drafters.append(entry)
    pool.drafters.append({"name": "off", "kind": "none"})
    pool.write()
    return pool


def test_modes_overlap_and_warnings_are_shown(hetero_spec: Run, foreign: ForeignPool) -> None:
    ran = hetero_spec("inspect", foreign.root, "--target", foreign.target)
    lines = ran.out.splitlines()
    assert (ran.code, ran.err, lines[-1]) == (0, "", "Every check passed.")
    table = "\n".join(line for line in lines if "standalone" in line)
    assert all(mode in table for mode in (" tli ", " slem (auto) ", " shared (auto) "))
    told = [line for line in lines if line.startswith(("Drafter", "Warning"))]
    assert [line.split(":")[0] for line in told] == [
        "Drafter draft, vocab tli",
        "Warning",
        "Drafter bytes is `slem` by `auto`",
        "Drafter bytes, vocab slem",
        "Drafter same is `shared` by `auto`",
    ]
    assert told[0].count("%") == 2 and "of the target's vocabulary" in told[0] and "of the drafter's" in told[0]
    assert told[1].startswith("Warning: drafter draft can propose only ") and "use `slem`" in told[1]
    assert told[4].endswith(": its vocabulary is the target's.")


def test_the_mass_is_that_of_the_pools_tasks(hetero_spec: Run, foreign: ForeignPool) -> None:
    foreign.write_examples("!")
    ran = hetero_spec("inspect", foreign.root, "--target", foreign.target)
    assert ran.out.count("100.0% of the tokens in the tasks' example prompts") == 3, "twice by its line, once by auto's"
    assert "tli (auto)" in ran.out and "Warning" not in ran.out


def test_json_has_the_same_for_machines(hetero_spec: Run, foreign: ForeignPool) -> None:
    foreign.write_examples("! is the target's token and everyone's")
    ran = hetero_spec("inspect", foreign.root, "--target", foreign.target, "--json")
    assert (ran.code, ran.err) == (0, "")
    draft, by_auto, same, off = json.loads(ran.out)["drafters"]
    assert (draft["vocab"], draft["auto_reason"]) == ("tli", None)
    figures = {"num_shared", "num_target", "num_draft", "target_percent", "draft_percent", "mass_percent", "mass_of"}
    assert figures <= set(draft["overlap"])
    assert 0 < draft["overlap"]["mass_percent"] < 100 and draft["overlap"]["mass_of"] == "the tasks' example prompts"
    assert draft["warning"].startswith("Drafter draft can propose only ")
    assert by_auto["vocab"] == "slem" and by_auto["warning"] is None and "less than the 95%" in by_auto["auto_reason"]
    assert (same["vocab"], same["overlap"], same["warning"]) == ("shared", None, None)
    assert off["overlap"] is None


def test_without_the_target_nothing_is_made_up(hetero_spec: Run, foreign: ForeignPool) -> None:
    ran = hetero_spec("inspect", foreign.root)
    assert ran.code == 0 and " auto " in ran.out and "%" not in ran.out
    assert "Vocabularies were not compared: give --target DIR to see what they share" in ran.err
    found = json.loads(hetero_spec("inspect", foreign.root, "--json").out)["drafters"]
    assert [drafter["vocab"] for drafter in found] == ["tli", "auto", "auto", "shared"]
    assert all(drafter["overlap"] is None for drafter in found)


def test_what_a_server_would_refuse_is_refused(hetero_spec: Run, foreign: ForeignPool) -> None:
    put_model(foreign.folder, "llama2")
    foreign.entry["vocab"] = "slrs"
    foreign.write()
    ran = hetero_spec("inspect", foreign.root, "--target", foreign.target)
    assert (ran.code, ran.out) == (2, "") and ran.err.count("\n") == 1
    assert "rows of draft forwards" in ran.err
