"""The engine's process, with a stand-in for SGLang that fails as the real one cannot be made to."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from sglang_hetero_spec.build.prompts import Prompt
from sglang_hetero_spec.build.regenerate import Options, RegenerateError, RegenerateStopped, read_answers
from sglang_hetero_spec.build.regenerate.backend import Limits, Refused, Reply, Request
from sglang_hetero_spec.build.regenerate.engine_backend import EngineBackend, EngineSettings, why_it_ended
from sglang_hetero_spec.build.regenerate.engine_child import Plan, engine_arguments
from tests.build.regenerate.commandline import wait_for

CHILD = """
import json, os, sys, time
from sglang_hetero_spec.build.regenerate.engine_child import Plan, end_with
plan = Plan.from_argument(sys.argv[1])
assert end_with(plan.parent)
{start}
requests, replies = os.fdopen(plan.requests), os.fdopen(plan.replies, "w", buffering=1)
print(json.dumps({{"context": 1024, "prompt": 1018, "is_seeded_by_processor": False}}), file=replies)
held = []
for count, line in enumerate(requests):
    number = json.loads(line)["number"]
    {each}
    reason = {{"type": "stop"}}
    answer = {{"text": str(number), "output_ids": [number], "meta_info": {{"finish_reason": reason}}}}
    print(json.dumps({{"number": number, "answer": answer}}), file=replies)
"""

Maker = Callable[..., EngineBackend]


@pytest.fixture
def make(tmp_path: Path) -> Maker:
    """An engine whose process runs CHILD with code of the test's own at its start and for each request."""

    def make(start: str = "", each: str = "", concurrency: int = 4) -> EngineBackend:
        program = tmp_path / "child.py"
        program.write_text(CHILD.format(start=start, each=textwrap.indent(each, "    ").strip() or "pass"))
        command = (sys.executable, str(program))
        settings = EngineSettings("target", (), False, concurrency, tmp_path / "engine.log", command=command)
        return EngineBackend(settings)

    return make


def requests(number: int, length: int = 5) -> list[Request]:
    return [Request(i, (i,) * length, {}) for i in range(number)]


def test_answers_and_a_peaceful_end(make: Maker, tmp_path: Path) -> None:
    with make() as engine:
        assert engine.limits == Limits(1024, 1018)
        process = engine._process
        assert process is not None
        got = list(engine.answers(requests(30, length=5000)))  # far more than a pipe holds
        assert sorted(got, key=lambda reply: reply.number) == [Reply(i, (i,), str(i), "stop") for i in range(30)]
    assert process.returncode == 0 and not (tmp_path / "engine.log").exists()


def test_a_refused_prompt_is_one_prompt(make: Maker) -> None:
    refuse = """
if number == 3:
    print(json.dumps({"number": number, "refused": "Input length\\n exceeds"}), file=replies)
    continue
"""
    with make(each=refuse) as engine:
        got = {reply.number: reply for reply in engine.answers(requests(9))}
    assert got[3] == Refused(3, "the engine refused it: Input length exceeds") and len(got) == 9


def test_an_engine_that_ends_in_the_middle_keeps_what_is_finished(
    make: Maker, ask: Callable[..., Any], prompts: tuple[Prompt, ...], out: Path
) -> None:
    dies = "if count == 9:\n    print('RuntimeError: the scheduler hit an error'); sys.stdout.flush(); os._exit(3)"
    sentence = r"ended with code 3 \(RuntimeError: the scheduler hit an error\), its log is .*engine.log; 9 answers"
    with pytest.raises(RegenerateStopped, match=sentence):
        ask(prompts, make_backend=lambda *_: make(each=dies, concurrency=1))
    found = ask(prompts, make_backend=lambda *_: make())
    assert (found.kept, found.answered) == (9, 20)
    assert [answer.id for answer in read_answers(out)] == [prompt.id for prompt in prompts]


def test_a_target_that_does_not_load(make: Maker, ask: Callable[..., Any], prompts: tuple[Prompt, ...]) -> None:
    fails = "print('Traceback ...\\nValueError: Unsupported architecture: Foo'); sys.exit(1)"
    with pytest.raises(RegenerateStopped, match=r"code 1 \(ValueError: Unsupported architecture: Foo\).*same command"):
        ask(prompts, make_backend=lambda *_: make(start=fails))


def test_a_checkpoint_that_is_broken_is_seen_before_anything_is_loaded(
    ask: Callable[..., Any], prompts: tuple[Prompt, ...], target_copy: Path
) -> None:
    weights = target_copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(RegenerateError, match=r"truncated or not a safetensors file"):
        ask(prompts, target=target_copy)
    weights.unlink()
    with pytest.raises(RegenerateError, match="has no weights"):
        ask(prompts, target=target_copy)
    (target_copy / "tokenizer.json").write_text("{")
    with pytest.raises(RegenerateError, match="does not load"):
        ask(prompts, target=target_copy, url="http://127.0.0.1:1")


def test_the_engine_ends_with_its_parent(tmp_path: Path) -> None:
    parent = tmp_path / "parent.py"
    (tmp_path / "child.py").write_text(CHILD.format(start="", each="time.sleep(600)"))
    parent.write_text(
        "import sys\nfrom pathlib import Path\n"
        "from sglang_hetero_spec.build.regenerate.backend import Request\n"
        "from sglang_hetero_spec.build.regenerate.engine_backend import EngineBackend, EngineSettings\n"
        f"command = ({sys.executable!r}, {str(tmp_path / 'child.py')!r})\n"
        f"settings = EngineSettings('t', (), False, 1, Path({str(tmp_path / 'log')!r}), command=command)\n"
        "with EngineBackend(settings) as engine:\n"
        "    print(engine._process.pid, flush=True)\n"
        "    list(engine.answers([Request(0, (1,), {})]))\n"
    )
    process = subprocess.Popen([sys.executable, str(parent)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    child = psutil.Process(int(process.stdout.readline()))
    assert child.is_running()
    process.kill()
    process.wait()
    wait_for(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, seconds=10)


def test_left_by_an_interrupt_the_engine_is_stopped(make: Maker) -> None:
    with pytest.raises(KeyboardInterrupt), make(each="time.sleep(600)") as engine:
        process = engine._process
        assert process is not None
        raise KeyboardInterrupt
    assert process.returncode is not None


@pytest.mark.parametrize(
    ("log", "code", "found"),
    [
        ("hetero-spec: HETERO needs a pool.\n", 2, "did not start: HETERO needs a pool"),
        ("usage: x\nsglang serve: error: unrecognized arguments: --foo\n", 2, "does not take these flags (unrec"),
        ("torch.OutOfMemoryError: CUDA out of memory.\n", 1, "ran out of memory"),
        ("", -9, "was killed, most likely for want of memory"),
        ("x\nsafetensors_rust.SafetensorError: bad header\n", -3, "ended with code -3 (safetensors_rust.S"),
        ("", 7, "ended with code 7"),
    ],
)
def test_why_it_ended(log: str, code: int, found: str) -> None:
    assert why_it_ended(log, code).startswith(found)


def plan(*flags: str, is_sampled: bool = False) -> Plan:
    return Plan(os.getpid(), 3, 4, "T", flags, is_sampled, 500)


def test_the_user_has_the_last_word_on_flags() -> None:
    ours = engine_arguments(plan("--dtype=bfloat16", "--device", "cpu"), on_cpu=True)
    assert ours[-3:] == ["--dtype=bfloat16", "--device", "cpu"]
    assert ours.count("--device") == 1 and "float32" not in ours
    assert ours[ours.index("--max-total-tokens") + 1] == "500"
    assert "--max-total-tokens" not in engine_arguments(plan(), on_cpu=False)
    assert "--enable-deterministic-inference" in engine_arguments(plan(is_sampled=True), on_cpu=False)
    assert "--enable-custom-logit-processor" in engine_arguments(plan(is_sampled=True), on_cpu=True)


def test_flags_reach_the_engine(tmp_path: Path, out: Path) -> None:
    from sglang_hetero_spec.build.regenerate.run import backend_for

    made = backend_for(Options(flags=("--tp-size", "2"), batch=7, temperature=0.5), "T", out, 99)
    assert isinstance(made, EngineBackend)
    settings = made._settings
    assert (settings.flags, settings.concurrency, settings.kv_tokens) == (("--tp-size", "2"), 7, 99)
    assert settings.is_sampled and settings.log == tmp_path / "answers.engine.log"
