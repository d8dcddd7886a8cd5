"""Sorted drafters in a profile: fixed exits first, thresholds by what was measured of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM

from sglang_hetero_spec.build.align.answers import Row, read_answers
from sglang_hetero_spec.build.profile import exits
from sglang_hetero_spec.build.profile.candidates import Candidate
from sglang_hetero_spec.build.profile.exits import held_out, see_exits
from sglang_hetero_spec.build.profile.measure import ProfileOptions, profile
from sglang_hetero_spec.build.profile.records import ProfileError, Settings, read_profile
from sglang_hetero_spec.build.profile.served import read_served
from sglang_hetero_spec.build.profile.thresholds import Costs, SeenAnswer
from sglang_hetero_spec.build.prompts import read_prompts
from sglang_hetero_spec.build.regenerate import target as targets
from sglang_hetero_spec.build.regenerate.answers import Answer, to_line
from sglang_hetero_spec.build.sorted_file import write_exits
from tests.build.profile.conftest import Files
from tests.build.profile.fake_engine import FakeEngine
from tests.support.tiny_models import TinyShape, write_tiny_model

EXITS = (1, 2, 3)
OPTIONS = ProfileOptions(concurrency=(1, 4), num_prompts=3, max_new_tokens=17, passes=1, shapes=(Settings(3, 1, 4),))


@pytest.fixture(scope="module")
def drafter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    shape = TinyShape(hidden=32, layers=3, max_len=256)
    folder = write_tiny_model(tmp_path_factory.mktemp("sorted") / "nested", seed=5, shape=shape)
    write_exits(folder, EXITS)
    return folder


@pytest.fixture(scope="module")
def answers(files: Files, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An answer to every prompt, of 1 to 12 tokens."""
    prompts = read_prompts(files.prompts)
    rng = np.random.default_rng(0)
    encoded = targets.encode(targets.load_tokenizer(str(files.target)), prompts)
    said = [
        Answer(prompt.id, tuple(ids), tuple(rng.integers(2, 200, 1 + 2 * n).tolist()), "", "length", prompt.task)
        for n, (prompt, ids) in enumerate(zip(prompts, encoded, strict=True))
    ]
    path = tmp_path_factory.mktemp("answers") / "answers.jsonl"
    path.write_bytes(b"".join(map(to_line, said)))
    return path


def test_what_each_exit_says(drafter: Path, answers: Path) -> None:
    rows = read_answers(answers)
    model = LlamaForCausalLM.from_pretrained(drafter).eval()
    for some in (EXITS, (1, 2)):
        for row, seen in zip(rows, see_exits(drafter, some, rows), strict=True):
            assert seen.hits.shape == seen.confidences.shape == (len(some), len(row.answer) - 1)
            for number, layers in enumerate(some):
                probs = by_hand(model, row, layers)
                np.testing.assert_allclose(seen.confidences[number], probs.amax(-1), rtol=1e-4)
                np.testing.assert_array_equal(seen.hits[number], probs.argmax(-1) == torch.tensor(row.answer[1:]))


@torch.no_grad()
def by_hand(model: LlamaForCausalLM, row: Row, layers: int) -> torch.Tensor:
    out = model(torch.tensor([[*row.prompt, *row.answer]]), output_hidden_states=True)
    logits = out.logits if layers == EXITS[-1] else model.lm_head(model.model.norm(out.hidden_states[layers]))
    return logits[0, len(row.prompt) : -1].softmax(-1)


def test_answers_to_other_prompts_are_left_aside(answers: Path) -> None:
    rows = read_answers(answers)
    assert held_out(answers, [rows[1].prompt, rows[3].prompt]) == [rows[1], rows[3]]
    with pytest.raises(ProfileError, match="no answer to a prompt that is profiled"):
        held_out(answers, [(1, 2, 3)])


def test_shapes_of_one_drafter_may_have_different_exits(
    drafter: Path, answers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What could not be measured of one shape is left out of that one."""

    def seen(folder: Path, layers: tuple[int, ...], rows: list[Row]) -> list[SeenAnswer]:
        rng = np.random.default_rng(0)
        return [SeenAnswer(rng.random((len(layers), 9)), rng.random((len(layers), 9)) < 0.5)]

    monkeypatch.setattr(exits, "see_exits", seen)
    monkeypatch.setattr(exits, "measured_costs", lambda _, names, *__: Costs(1.0, (0.1,) * len(names)))
    measured = [
        Candidate(f"d-exit{layers}", Settings(steps, 1, steps + 1), drafter, "sorted", takes_shapes=True,
                  extra=(("exits", (layers,)),))
        for steps, at in ((2, (1, 3)), (3, (1, 2, 3)), (4, (1, 2, 3, 4))) for layers in at
    ]  # fmt: skip
    found = exits.by_confidence(measured, (), [row.prompt for row in read_answers(answers)], answers, (1,))
    assert [dict(one.candidate.extra)["exits"] for one in found] == [(1, 3), (1, 2, 3), (1, 2, 3, 4)]
    assert [len(one.chosen.thresholds) for one in found] == [1, 2, 3]


def test_a_sorted_drafter_is_measured_at_fixed_exits_then_by_confidence(
    files: Files, drafter: Path, answers: Path, tmp_path: Path
) -> None:
    engine, out = FakeEngine(), tmp_path / "profile.jsonl"
    found = profile(files.target, [str(drafter)], files.prompts, out, OPTIONS, answers=answers, start=engine.start)
    fixed = {f"nested-exit{layers}" for layers in EXITS}
    assert found.left_out == () and len(engine.starts) == 2
    assert engine.starts[0] == ["none", *(f"{n}.nested-exit{layers}" for n, layers in enumerate(EXITS, start=1))]
    served = read_served(out)
    assert {record.drafter for record in read_profile(out)} == {"none", *served}
    late = [entry for name, entry in served.items() if name not in fixed]
    assert late and all(entry["path"] == str(drafter) and entry["kind"] == "sorted" for entry in served.values())
    for entry in late:
        assert entry["exits"] == list(EXITS) and len(entry["thresholds"]) == 2
    assert [served[f"nested-exit{layers}"]["exits"] for layers in EXITS] == [[1], [2], [3]]


def test_without_answers_there_are_fixed_exits_only(files: Files, drafter: Path, tmp_path: Path) -> None:
    engine = FakeEngine()
    found = profile(files.target, [str(drafter)], files.prompts, tmp_path / "p.jsonl", OPTIONS, start=engine.start)
    assert len(engine.starts) == 1
    assert any("fixed exits only" in note for note in found.notes)
