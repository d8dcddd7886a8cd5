"""benchmarks/gpu_run.py where there is no GPU: its plan, its clock, its children, the models that it makes, and all of
its engine steps with an engine that is none."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import gpu_engines, gpu_models, gpu_run, gpu_speed
from benchmarks.gpu_context import DRY, Arm, Context, Row, Scale, Step
from benchmarks.gpu_engines import Batch
from benchmarks.gpu_run import Clock, Results, chosen, run, table
from benchmarks.gpu_steps import STEPS, from_context

TINY = DRY.target


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


def silent(line: str) -> None:
    pass


def test_what_does_not_fit_is_skipped_and_what_fails_is_told(tmp_path: Path) -> None:
    """And nothing that was found is lost: not by a step that fails behind it, not by the end of the process."""
    attempts = []

    def fails(context: Context) -> Iterator[Row]:
        yield Row("bad", "found before", 3.0)
        attempts.append(json.loads(path.read_text())["rows"][-1]["what"])
        if len(attempts) == 1:
            raise RuntimeError("out of memory")
        yield Row("bad", "found later", 4.0, 1.0)

    def works(context: Context) -> Iterator[Row]:
        yield Row("good", "ratio", 0.5, 1.0, done_when="3")
        yield Row("good", "other", 2.0, 1.0, "note", "2")
        context.switches["X"] = "y"

    path = tmp_path / "gpu_run.json"
    steps = [Step("long", "too long", 900, works), Step("bad", "fails", 10, fails), Step("good", "works", 10, works)]
    context = Context(tmp_path, Scale(TINY))
    rows = run(steps, context, Clock(seconds=100), Results(path), silent)
    assert [(row.step, row.what) for row in rows] == [
        ("long", "too long"), ("bad", "found before"), ("bad", "fails"), ("good", "ratio"), ("good", "other"),
    ]  # fmt: skip
    assert "skipped" in rows[0].note and "out of memory" in rows[2].note and attempts == ["found before"]
    assert 0 < context.left < 11, "no step is given more than its box"
    lines = table(rows).splitlines()
    assert lines[1].startswith("2 ") and " met " in lines[1] and "MISSED" in lines[2] and "NOT RUN" in lines[-1]

    again = Results(path)
    assert again.rows.keys() == {(row.step, row.what) for row in rows} and again.done == {"good"}
    context = Context(tmp_path, Scale(TINY))
    rows = run(steps, context, Clock(seconds=2000), again, silent)
    assert context.switches == {"X": "y"}, "what a step found out is known to the next run"
    assert [(row.step, row.what) for row in rows if row.step == "bad"] == [
        ("bad", "found before"), ("bad", "found later"),
    ]  # fmt: skip
    assert len(attempts) == 2 and not any("skipped" in row.note for row in rows)


@pytest.mark.parametrize(
    ("faster", "context"),
    [([True] * 3, 2048), ([False, True, True], 8192), ([True, False, True], 32768), ([True, True, False], None)],
)
def test_a_crossover_holds_from_there_on(faster: list[bool], context: int | None) -> None:
    assert from_context(faster, (2048, 8192, 32768)) == context


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
    lora, kinds = (load_pool(made.pools[name], target=made.target).drafters for name in ("lora", "kinds"))
    assert [spec.base for spec in lora] == [None, *["general"] * 4]
    shapes = {("standalone", 1), ("standalone", 2), ("lora", 1), ("ngram", 2)}
    assert {(spec.kind, spec.topk) for spec in kinds} == shapes


def test_an_adapter_leaves_accept_lengths_as_they_are(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    from tests.support.adapters import merged

    made = gpu_models.make(tmp_path, TINY, device="cpu", draft=TINY)
    prompts = torch.tensor(gpu_models.prompts(TINY.vocab_size, [0, 1, 2, 3], 60))
    base = AutoModelForCausalLM.from_pretrained(made.general, dtype=torch.float32)
    with torch.no_grad():
        one, other = base(prompts).logits, merged(base, tmp_path / "lora1")(prompts).logits
    assert not torch.equal(one, other) and (one.argmax(-1) == other.argmax(-1)).float().mean() > 0.98


def test_workloads_name_the_drafter_of_each_task(tmp_path: Path) -> None:
    plain, mixed = gpu_speed.workload(Context(tmp_path, DRY), 6)
    assert plain.prompts == mixed.prompts and plain.drafters is None
    for prompt, drafter in zip(mixed.prompts, mixed.drafters, strict=True):
        assert set(prompt) <= set(gpu_models.block(TINY.vocab_size, int(drafter[-1])))


FAKE_SGLANG = """
import json, os, pathlib, time

STAGES = {"merge": [1e-4, 1e-4, 1], "target forward": [1.0, 1.0, 1]}

class Engine:
    def __init__(self, **arguments):
        print("loading", arguments["model_path"])
        if arguments["model_path"] == "bad":
            raise RuntimeError("CUDA error: it is not there")
        self.drafts = "speculative_algorithm" in arguments
    def start_profile(self, output_dir, **options):
        spans = [{"ph": "X", "cat": "user_annotation", "name": "verify", "ts": n, "dur": 1, "tid": 1} for n in range(9)]
        pathlib.Path(output_dir).mkdir()
        pathlib.Path(output_dir, "a.trace.json").write_text(json.dumps({"traceEvents": spans}))
    def generate(self, input_ids, sampling_params):
        made = []
        for ids, params in zip(input_ids, sampling_params):
            if params["max_new_tokens"] == 99:
                time.sleep(60)
            name = params.get("custom_params", {}).get("hetero", {}).get("drafter")
            meta = {"completion_tokens": params["max_new_tokens"], "spec_verify_ct": 2 if name or self.drafts else 0}
            made.append({"output_ids": ids, "meta_info": meta})
        if "HETERO_STEP_SPANS" in os.environ:
            line = json.dumps({"requests": len(input_ids), "profiled": False, "stages": STAGES})
            pathlib.Path(os.environ["HETERO_STEP_SPANS"]).open("a").write(line + chr(10))
        return made
    def shutdown(self):
        pass
"""


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fake").mkdir()
    (tmp_path / "fake" / "sglang.py").write_text(FAKE_SGLANG)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "fake"))


def test_a_child_answers_batches(fake: None, tmp_path: Path) -> None:
    child = gpu_engines.EngineChild("a", {"model_path": "x"}, tmp_path / "a.log")
    bad = gpu_engines.EngineChild("b", {"model_path": "bad"}, tmp_path / "b.log")
    try:
        child.wait_ready(60)
        answer = child.ask(Batch([[1, 2], [3]], None, 6), 60)
        assert answer.tokens == 12 and answer.accept_length is None and answer.output_ids == [[1, 2], [3]]
        answer = child.ask(Batch([[1], [3]], ["p", "q"], 6), 60)
        assert answer.accept_length == 3.0 and answer.verify_steps == 4
        with pytest.raises(RuntimeError, match="b ended: RuntimeError: CUDA error: it is not there"):
            bad.wait_ready(60)
        assert bad.is_lost and not child.is_lost
    finally:
        child.stop()
        bad.stop()
    assert "loading x" in (tmp_path / "a.log").read_text()


@pytest.fixture
def context(fake: None, tmp_path: Path) -> Iterator[Context]:
    scale = Scale(TINY, draft=TINY, batches=(1, 8), prompt=8, tokens=6, rounds=1)
    (tmp_path / "out").mkdir()
    made = Context(tmp_path / "out", scale)
    made.made = gpu_models.make(tmp_path / "models", TINY, device="cpu", draft=TINY)
    yield made
    made.close()


def test_every_step_with_engines_runs_through(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = [step for step in STEPS if not step.needs_cuda]
    path = context.out / "gpu_run.json"
    rows = run(steps, context, Clock(seconds=5000), Results(path), silent)
    assert [row for row in rows if row.value is None] == []
    assert {row.step for row in rows} == {step.name for step in steps}
    assert {row.done_when for row in rows} >= {"1", "2", "3", "4", "6"}
    assert len([row for row in rows if row.step == "lossless"]) == 4, "both ways, both page sizes"
    host = next(row for row in rows if "host time" in row.what)
    assert host.value == pytest.approx(1.5) and host.verdict == "met"
    monkeypatch.setattr(gpu_engines, "ROOT", Path("/nowhere"))
    again = Context(context.out, context.scale)
    assert run(steps, again, Clock(seconds=5000), Results(path), silent) == rows and not again.engines


def test_engines_make_room_and_lost_ones_start_again(context: Context) -> None:
    import time

    context.scale = replace(context.scale, most_engines=3)
    arms = {name: Arm("HETERO", "one") for name in "abcd"}
    context.deadline = time.monotonic() + 100
    context.start({name: arms[name] for name in "abc"})
    assert set(context.engines) == set("abc") == context.ready
    context.start({"d": arms["d"]})
    assert set(context.engines) == set("bcd")
    first = context.engines["d"]
    context.deadline = time.monotonic() + 1.5
    with pytest.raises(TimeoutError, match="d said nothing"):
        context.ask("d", Batch([[1]], None, 99))
    context.deadline = time.monotonic() + 100
    context.drop_lost()
    assert set(context.engines) == set("bc")
    assert context.ask("d", Batch([[5]], None, 6)).output_ids == [[5]] and context.engines["d"] is not first


def test_switches_go_to_engines_of_ours_alone(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}
    monkeypatch.setattr(
        "benchmarks.gpu_context.EngineChild", lambda name, arguments, log, environ: seen.update({name: environ})
    )
    context.switches = {"A": "1", "B": "1"}
    for name, arm in {"none": Arm(), "ours": Arm("HETERO", "four", environ={"B": "2"})}.items():
        context.arms[name] = arm
        context._launch(name)
    context.engines.clear()
    assert seen == {"none": {}, "ours": {"A": "1", "B": "2"}}


def dry_run(out: Path, steps: list[Step]) -> list[Row]:
    context = Context(out, DRY)
    try:
        return run(steps, context, Clock(seconds=3000), Results(out / "results.json"), silent)
    finally:
        context.close()


@pytest.mark.slow
def test_a_step_runs_dry_on_the_cpu_engine(tmp_path: Path) -> None:
    rows = dry_run(tmp_path, [step for step in STEPS if step.name == "one"])
    assert rows and [row.note for row in rows if row.value is None] == []


@pytest.mark.soak  # some fifteen engines
def test_all_steps_run_dry_on_the_cpu_engine(tmp_path: Path) -> None:
    rows = dry_run(tmp_path, list(STEPS))
    cuda = {step.name for step in STEPS if step.needs_cuda}
    assert [row.note for row in rows if row.value is None and row.step not in cuda] == []
    exact = [row for row in rows if row.step in ("lossless", "sampled")]
    assert exact and all(row.verdict == "met" for row in exact)


def test_a_child_finds_the_plugin_where_nothing_is_installed(tmp_path: Path) -> None:
    import subprocess

    code = "import importlib.metadata as m; print([e.value for e in m.entry_points(group='sglang.srt.plugins')])"
    run = subprocess.run(
        [sys.executable, "-c", code], env=gpu_engines.environment(tmp_path), capture_output=True, text=True, check=True
    )
    assert "sglang_hetero_spec.plugin:register" in run.stdout
