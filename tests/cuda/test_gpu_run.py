"""benchmarks/gpu_run.py where there is no GPU: its plan, its clock, its children, and the models that it makes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from benchmarks import gpu_engines, gpu_models, gpu_run, gpu_steps
from benchmarks.gpu_run import Clock, chosen, run, table
from benchmarks.gpu_steps import STEPS, Context, Row, Step, from_context

TINY = gpu_models.Shape(hidden=128, layers=2, heads=4, kv_heads=2, inner=256, vocab_size=700, max_len=512)


def test_the_plan_needs_no_gpu(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu_run", "--plan"])
    gpu_run.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:-1]] == [step.name for step in STEPS]


def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu_run", "--out", str(tmp_path)])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="sees no CUDA device"):
        gpu_run.main()


def test_steps_by_name() -> None:
    assert [step.name for step in chosen("mixed,kernels")] == ["mixed", "kernels"]
    with pytest.raises(SystemExit, match="no step is named nothing"):
        chosen("nothing")


def test_what_does_not_fit_is_skipped_and_what_fails_is_told(tmp_path: Path) -> None:
    def fail(context: Context) -> list[Row]:
        raise RuntimeError("out of memory")

    steps = [
        Step("long", "too long", 900, fail),
        Step("bad", "fails", 10, fail),
        Step("good", "works", 10, lambda context: [Row("good", "ratio", 0.5, 1.0), Row("good", "other", 2.0, 1.0)]),
    ]
    context = Context(out=tmp_path, target="small")
    rows = run(steps, context, Clock(seconds=100), say=lambda line: None)
    assert [row.step for row in rows] == ["long", "bad", "good", "good"]
    assert "skipped" in rows[0].note and "out of memory" in rows[1].note
    assert json.loads((tmp_path / "gpu_run.json").read_text())[2]["value"] == 0.5
    lines = table(rows).splitlines()
    assert "MISSED" in lines[3] and "reached" in lines[4]
    assert 0 < context.left < 81


@pytest.mark.parametrize(
    ("faster", "context"),
    [([True] * 3, 2048), ([False, True, True], 8192), ([True, False, True], 32768), ([True, True, False], None)],
)
def test_a_crossover_holds_from_there_on(faster: list[bool], context: int | None) -> None:
    assert from_context(faster) == context


def test_the_models_answer_as_they_were_made(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    made = gpu_models.make(tmp_path, TINY, device="cpu", draft=TINY)
    following = gpu_models.successors(TINY.vocab_size)
    prompts = torch.tensor(gpu_models.prompts(TINY.vocab_size, [0, 1, 2, 3], 60))
    assert torch.equal(following[prompts[:, :-1]], prompts[:, 1:])

    def share_right(folder: Path) -> list[float]:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        with torch.no_grad():
            guesses = model(prompts).logits.argmax(-1)
        return (guesses == following[prompts]).float().mean(1).tolist()

    assert share_right(made.target) == [1.0] * 4
    of_task = share_right(tmp_path / "task2")
    assert of_task[2] > 0.75 and max(of_task[:2] + of_task[3:]) < 0.65
    assert max(share_right(made.general)) < 0.85


def test_the_pools_are_pools(tmp_path: Path) -> None:
    from sglang_hetero_spec.pool import load_pool

    made = gpu_models.make(tmp_path, TINY, device="cpu", draft=TINY)
    pool = load_pool(made.pools["four"], target=made.target)
    assert [spec.name for spec in pool.drafters] == ["task0", "task1", "task2", "task3"] and pool.widest == 5
    assert len(load_pool(made.pools["one"], target=made.target).drafters) == 1


def test_workloads_name_the_drafter_of_each_task() -> None:
    plain, mixed = gpu_steps.workload(SimpleNamespace(shape=TINY), 6)
    assert plain.prompts == mixed.prompts and plain.drafters is None
    for prompt, drafter in zip(mixed.prompts, mixed.drafters, strict=True):
        assert set(prompt) <= set(gpu_models.block(TINY.vocab_size, int(drafter[-1])))


FAKE_SGLANG = """
class Engine:
    def __init__(self, **arguments):
        print("loading", arguments["model_path"])
        if arguments["model_path"] == "bad":
            raise RuntimeError("CUDA error: it is not there")
    def generate(self, input_ids, sampling_params):
        made = []
        for ids, params in zip(input_ids, sampling_params):
            name = params.get("custom_params", {}).get("hetero", {}).get("drafter")
            meta = {"completion_tokens": params["max_new_tokens"], "spec_verify_ct": 2 if name else 0}
            made.append({"output_ids": ids, "meta_info": meta})
        return made
    def shutdown(self):
        pass
"""


def test_a_child_answers_batches(tmp_path: Path) -> None:
    (tmp_path / "fake").mkdir()
    (tmp_path / "fake" / "sglang.py").write_text(FAKE_SGLANG)
    environ = {"PYTHONPATH": f"{gpu_engines.ROOT}:{tmp_path / 'fake'}"}
    child = gpu_engines.EngineChild("a", {"model_path": "x"}, tmp_path / "a.log", environ)
    bad = gpu_engines.EngineChild("b", {"model_path": "bad"}, tmp_path / "b.log", environ)
    try:
        child.wait_ready(60)
        answer = child.ask(gpu_engines.Batch([[1, 2], [3]], None, 6), 60)
        assert answer.tokens == 12 and answer.accept_length is None and answer.output_ids == [[1, 2], [3]]
        answer = child.ask(gpu_engines.Batch([[1], [3]], ["p", "q"], 6), 60)
        assert answer.accept_length == 3.0 and answer.verify_steps == 4
        with pytest.raises(RuntimeError, match="b ended: RuntimeError: CUDA error: it is not there"):
            bad.wait_ready(60)
    finally:
        child.stop()
        bad.stop()
    assert "loading x" in (tmp_path / "a.log").read_text()


def test_a_child_finds_the_plugin_where_nothing_is_installed(tmp_path: Path) -> None:
    import subprocess

    code = "import importlib.metadata as m; print([e.value for e in m.entry_points(group='sglang.srt.plugins')])"
    run = subprocess.run(
        [sys.executable, "-c", code], env=gpu_engines.environment(tmp_path), capture_output=True, text=True, check=True
    )
    assert "sglang_hetero_spec.plugin:register" in run.stdout
