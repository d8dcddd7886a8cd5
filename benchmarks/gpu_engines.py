"""SGLang engines as child processes that answer one batch at a time, so that arms can take turns in one run.

`python -m benchmarks.gpu_engines ARGUMENTS` (JSON of sglang.Engine's) is the child: a batch per line in, its figures
per line out.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
_MARK = "gpu-engine:"


@dataclass(frozen=True)
class Batch:
    """Sent at once. drafters: names for each prompt, or None: the fallback, or no pool. profile: a folder for a trace
    of the first `profiled_steps` forwards."""

    prompts: list[list[int]]
    drafters: list[str] | None
    num_tokens: int
    temperature: float = 0.0
    profile: str | None = None
    profiled_steps: int = 0


@dataclass(frozen=True)
class Answer:
    """accept_length: completion tokens / verify steps, of the batch; None without speculation."""

    seconds: float
    tokens: int
    accept_length: float | None
    output_ids: list[list[int]]
    verify_steps: int | None = None

    @property
    def rate(self) -> float:
        return self.tokens / self.seconds


class EngineChild:
    """One engine. Its seconds are how long it may take to start or to answer."""

    def __init__(self, name: str, arguments: dict[str, Any], log: Path, environ: dict[str, str] | None = None) -> None:
        self.name = name
        self._log = log
        command = [sys.executable, "-m", "benchmarks.gpu_engines", json.dumps(arguments)]
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment(log.parent) | (environ or {}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log.open("w"),
            text=True,
            start_new_session=True,
        )
        self._lines: queue.Queue[str | None] = queue.Queue()
        self.is_lost = False
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(_MARK):
                self._lines.put(line[len(_MARK) :])
        self._lines.put(None)

    def wait_ready(self, seconds: float) -> None:
        self._answer(seconds)

    def ask(self, batch: Batch, seconds: float) -> Answer:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(vars(batch)) + "\n")
        self._process.stdin.flush()
        return Answer(**self._answer(seconds))

    def _answer(self, seconds: float) -> dict[str, Any]:
        try:
            line = self._lines.get(timeout=max(seconds, 0.1))
        except queue.Empty:
            self.is_lost = True  # what it says next is the answer to an old question
            raise TimeoutError(f"{self.name} said nothing for {seconds:.0f} s; its log is {self._log}") from None
        if line is None:
            self.is_lost = True
            raise RuntimeError(f"{self.name} ended: {last_error(self._log)}")
        return json.loads(line)

    def stop(self) -> None:
        """With everything that it started: the engine's processes are in its session."""
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        try:
            self._process.wait(0.1 if self.is_lost else 20)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, 9)
            self._process.wait()


def last_error(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if "Error" in line or "error" in line]
    return (errors or lines or ["nothing in its log"])[-1][:300]


def environment(folder: Path) -> dict[str, str]:
    """With this checkout importable and its entry point seen, also where it cannot be installed."""
    made = folder / "entry-point"
    info = made / "sglang_hetero_spec-0.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: sglang-hetero-spec\nVersion: 0\n")
    plugins = "hetero_spec = sglang_hetero_spec.plugin:register\nstep_spans = benchmarks.step_spans:register\n"
    (info / "entry_points.txt").write_text(f"[sglang.srt.plugins]\n{plugins}")
    paths = [str(ROOT), str(made), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def arguments_of(
    target: Path, algorithm: str | None, draft: Path | None, requests: int = 32, **more: Any
) -> dict[str, Any]:
    """Of sglang.Engine. `more` should say max_total_tokens: engines that start beside each other cannot size their KV
    caches by what is free on the GPU, of which each takes the others' for its own."""
    made = {
        "model_path": str(target),
        "dtype": "bfloat16",
        "attention_backend": "flashinfer",
        "sampling_backend": "pytorch",
        "mem_fraction_static": 0.85,
        "max_running_requests": requests,
        "cuda_graph_max_bs_decode": requests,
        "disable_prefill_cuda_graph": True,
        "disable_radix_cache": True,
        "random_seed": 1,
        "log_level": "warning",
        "skip_server_warmup": True,
    }
    if algorithm is not None:
        made |= {"speculative_algorithm": algorithm, "speculative_draft_model_path": str(draft)}
    if algorithm == "STANDALONE":
        made |= {
            "speculative_num_steps": 4,
            "speculative_eagle_topk": 1,
            "speculative_num_draft_tokens": 5,
        }
    return made | more


def cpu_arguments(arguments: dict[str, Any]) -> dict[str, Any]:
    """The same for the CPU engine."""
    left_out = ("attention_backend", "sampling_backend", "cuda_graph_max_bs_decode", "disable_prefill_cuda_graph")
    kept = {name: value for name, value in arguments.items() if name not in left_out}
    return kept | {"device": "cpu", "dtype": "float32", "mem_fraction_static": 0.5}


def _requests(batch: dict[str, Any]) -> tuple[list[list[int]], list[dict[str, Any]]]:
    params = {"temperature": batch["temperature"], "max_new_tokens": batch["num_tokens"], "ignore_eos": True}
    drafters: Sequence[str | None] = batch["drafters"] or [None] * len(batch["prompts"])
    tags = [{} if name is None else {"custom_params": {"hetero": {"drafter": name}}} for name in drafters]
    return batch["prompts"], [params | tag for tag in tags]


def main() -> None:
    """The child."""
    arguments = json.loads(sys.argv[1])
    if arguments.get("device") == "cpu":
        from sglang_hetero_spec import cpu

        cpu.enable()
    import sglang

    out = os.dup(1)
    os.dup2(2, 1)  # what SGLang prints goes to the log

    def say(value: dict[str, Any]) -> None:
        os.write(out, f"{_MARK}{json.dumps(value)}\n".encode())

    engine = sglang.Engine(**arguments)
    say({})
    for line in sys.stdin:
        batch = json.loads(line)
        ids, params = _requests(batch)
        if batch["profile"]:
            activities = ["CPU"] if arguments.get("device") == "cpu" else ["CPU", "GPU"]
            options = {"with_stack": False, "record_shapes": False, "num_steps": batch["profiled_steps"]}
            engine.start_profile(output_dir=batch["profile"], activities=activities, **options)
        start = time.perf_counter()
        answers = engine.generate(input_ids=ids, sampling_params=params)
        seconds = time.perf_counter() - start
        steps = sum(answer["meta_info"].get("spec_verify_ct") or 0 for answer in answers)
        tokens = sum(answer["meta_info"]["completion_tokens"] for answer in answers)
        say(
            {
                "seconds": seconds,
                "tokens": tokens,
                "accept_length": tokens / steps if steps else None,
                "output_ids": [answer["output_ids"] for answer in answers],
                "verify_steps": steps or None,
            }
        )
    engine.shutdown()


if __name__ == "__main__":
    main()
