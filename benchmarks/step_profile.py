"""Where the time of a verify step goes: host and forwards, stage by stage, on the demo's mixed workload.

    python -m benchmarks.step_profile [--target-params 200M] [--concurrency 1,4,16] [--drafters 5] [--against CHECKOUT]

A HETERO server with the demo's pool, spans around the stages of each step (benchmarks.step_spans), and a trace of
torch.profiler of a few steps for each number of requests in flight (--trace FOLDER keeps them, for chrome://tracing).
--drafters: requests are given to so many drafters of the pool in turn, not routed. --against: another checkout of this
repository, served beside it, passes alternating; then every stage has the ratio of the two. Columns: wall milliseconds
of a step and their share, CPU milliseconds of the scheduler's thread (other programs disturb it less), PyTorch calls.
Steps with fewer requests than are in flight are left out.
"""

from __future__ import annotations

import argparse
import http.client
import json
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import step_spans, step_trace
from sglang_hetero_spec.cli import build_parser
from sglang_hetero_spec.commands.checked import checked_pool
from sglang_hetero_spec.commands.output import DONE
from sglang_hetero_spec.commands.progress import Reporter
from sglang_hetero_spec.demo.arms import HETERO, plan_servers
from sglang_hetero_spec.demo.machine import describe
from sglang_hetero_spec.demo.options import DemoOptions, from_arguments
from sglang_hetero_spec.demo.run import _target
from sglang_hetero_spec.demo.shipped import find_shipped, interleave
from sglang_hetero_spec.serving.client import flush_cache, generate_all, post
from sglang_hetero_spec.serving.interrupt import terminated_like_interrupted
from sglang_hetero_spec.serving.server import HOST, Server, ServerPlan, running

DEFAULTS = ("--num-prompts", "24", "--passes", "2", "--concurrency", "1,4,16", "--target-params", "200M")
HERE = Path(__file__).resolve().parent.parent
TRACED_STEPS = 6
FORWARDS = {step_spans.TARGET, step_spans.CATCH_UP, "propose: forward", "propose: gather KV"}
PROPOSING = {
    "propose: loop",
    "propose: draft batch",
    "propose: sampler",
    "propose: host",
    "propose: n-grams",
    "read prompts: host",
}


@dataclass
class Steps:
    """What one checkout did with so many requests in flight. records: of full steps; ops: PyTorch calls per step, by
    stage; wall, stepping: seconds of the passes, and of these in steps, full or not."""

    records: list[dict[str, Any]] = field(default_factory=list)
    ops: dict[str, float] = field(default_factory=dict)
    wall: float = 0.0
    stepping: float = 0.0

    def add(self, records: list[dict[str, Any]], wall: float, requests: int) -> None:
        self.records += [record for record in records if record["requests"] == requests]
        self.wall += wall
        self.stepping += sum(seconds for record in records for seconds, *_ in record["stages"].values())

    def mean(self, column: int, stages: Iterable[str]) -> float:
        """Per step: milliseconds (0), CPU milliseconds (1), or calls (2)."""
        total = sum(record["stages"].get(stage, [0, 0, 0])[column] for record in self.records for stage in stages)
        return total * (1e3 if column < 2 else 1) / max(len(self.records), 1)

    @property
    def stages(self) -> list[str]:
        """The dearest first."""
        names = {stage for record in self.records for stage in record["stages"]}
        return sorted(names, key=lambda stage: -self.mean(0, [stage]))

    def as_dict(self) -> dict[str, Any]:
        columns = ("ms", "cpu_ms", "calls")
        rows = {
            stage: {name: self.mean(number, [stage]) for number, name in enumerate(columns)}
            | {"ops": self.ops.get(stage)}
            for stage in self.stages
        }
        num_drafters = [len(record["drafters"]) for record in self.records]
        return {
            "steps": len(self.records),
            "drafters": sum(num_drafters) / max(len(num_drafters), 1),
            "accept_length": sum(record["accepted"] for record in self.records)
            / max(sum(record["requests"] for record in self.records), 1),
            "ms": self.mean(0, self.stages),
            "host_ms": self.mean(0, host_stages(self.stages)),
            "propose_host_ms": self.mean(0, PROPOSING),
            "wall_seconds": self.wall,
            "share_of_steps": self.stepping / self.wall if self.wall else None,
            "stages": rows,
        }


def host_stages(stages: Iterable[str]) -> set[str]:
    """What `sglang:hetero_host_seconds` counts."""
    return set(stages) - FORWARDS - PROPOSING


def plugin(folder: Path) -> Path:
    """A distribution that SGLang finds: the spans as its plugin."""
    info = folder / "hetero_step_spans-0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: hetero-step-spans\nVersion: 0\n")
    (info / "entry_points.txt").write_text("[sglang.srt.plugins]\nstep_spans = hetero_step_spans:register\n")
    (folder / "hetero_step_spans.py").write_text(Path(step_spans.__file__).read_text())
    return folder


def plans(checkouts: dict[str, Path], target: Path, options: DemoOptions, folder: Path) -> list[ServerPlan]:
    pool = checked_pool(str(find_shipped().pool), str(target))
    served = next(plan for plan in plan_servers(target, pool, options) if plan.name == HETERO)
    found = []
    for name, root in checkouts.items():
        path = f"{plugin(folder / name)}:{root}"
        # Safe path: not the current folder's package, whose checkout it may not be.
        environ = {"PYTHONPATH": path, "PYTHONSAFEPATH": "1", step_spans.OUT: str(folder / f"{name}.jsonl")}
        found.append(ServerPlan(name, served.options, {**served.environ, **environ}, name, served.less_memory))
    return found


def send(server: Server, prompts: Sequence[str], drafters: Sequence[str], concurrency: int, tokens: int) -> float:
    """Seconds it took. drafters: given to the prompts in turn; none: they are routed."""
    bodies = []
    for number, prompt in enumerate(prompts):
        params: dict[str, Any] = {"temperature": 0.0, "max_new_tokens": tokens, "ignore_eos": True}
        if drafters:
            params["custom_params"] = {"hetero": {"drafter": drafters[number % len(drafters)]}}
        bodies.append({"text": prompt, "sampling_params": params})
    return generate_all(server, bodies, concurrency=concurrency, on_answer=lambda _: None)[1]


def trace(server: Server, folder: Path, work: Any) -> Path | None:
    folder.mkdir(parents=True, exist_ok=True)
    connection = http.client.HTTPConnection(HOST, server.port, timeout=600)
    wanted = {"output_dir": str(folder), "num_steps": TRACED_STEPS, "start_step": None, "activities": ["CPU"]}
    work_before, work_during = work
    work_before()
    post(connection, "/start_profile", wanted)
    work_during()
    connection.close()
    return max(folder.glob("**/*.trace.json*"), default=None, key=lambda path: path.stat().st_mtime)


def measure(options: DemoOptions, checkouts: dict[str, Path], num_drafters: int, traces: Path | None) -> dict[str, Any]:
    shipped = find_shipped()
    prompts = [prompt.text for prompt in interleave(shipped.prompts(), max(options.num_prompts, 6))[0]]
    pool = checked_pool(str(shipped.pool), str(shipped.target))
    drafters = list(dict.fromkeys([task.drafter for task in pool.tasks] + [one.name for one in pool.drafters]))
    drafters = [name for name in drafters if name != "none"][:num_drafters]
    found: dict[str, dict[int, Steps]] = {name: {c: Steps() for c in options.concurrency} for name in checkouts}
    with tempfile.TemporaryDirectory() as folder, terminated_like_interrupted(), Reporter() as reporter:
        _, target = _target(shipped, options, reporter)
        reporter.line("Starting SGLang ...")
        with running(plans(checkouts, target, options, Path(folder)), Path(folder)) as servers:
            outs = {name: Path(folder) / f"{name}.jsonl" for name in servers}
            for server in servers.values():
                send(server, prompts, drafters, max(options.concurrency), 16)
            for c in options.concurrency:
                work = (prompts * -(-c // len(prompts)))[: max(len(prompts), c)]
                for number in range(options.passes):
                    for name in list(servers) if number % 2 == 0 else reversed(list(servers)):
                        begin = outs[name].stat().st_size
                        flush_cache(servers[name])
                        wall = send(servers[name], work, drafters, c, options.tokens)
                        found[name][c].add(read(outs[name], begin), wall, c)
                        reporter.line(f"{name}, {c} in flight")
                for name, server in servers.items():
                    kept = (traces or Path(folder)) / name / f"c{c}"
                    found[name][c].ops = traced(server, kept, work, drafters, c)
    return {name: {str(c): steps.as_dict() for c, steps in by.items()} for name, by in found.items()}


def traced(server: Server, folder: Path, prompts: Sequence[str], drafters: Sequence[str], c: int) -> dict[str, float]:
    # Prompts are cached by the first round, so the steps that are traced are decode steps, all but the first ones.
    rounds = [lambda tokens=tokens: send(server, prompts[:c], drafters, c, tokens) for tokens in (2, 24)]
    path = trace(server, folder, rounds)
    return {} if path is None else step_trace.ops_per_step(step_trace.load(path))


def read(out: Path, begin: int) -> list[dict[str, Any]]:
    with out.open("rb") as file:
        file.seek(begin)
        return [json.loads(line) for line in file]


def show(found: dict[str, Any]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    names = list(found)
    for c, first in found[names[0]].items():
        title = f"{c} in flight, {first['drafters']:.1f} drafters a step, {first['steps']} steps: {first['ms']:.1f} ms,"
        title += f" host {first['host_ms'] / first['ms']:.1%}, host within proposing"
        title += f" {first['propose_host_ms'] / first['ms']:.1%}; {first['share_of_steps']:.0%} of the time is in steps"
        table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
        more = [f"CPU ms of {name}, this / it" for name in names[1:]]
        for heading in ("", "ms", "share", "CPU ms", "calls", "PyTorch calls", *more):
            table.add_column(heading, justify="right" if heading else "left")
        for stage, row in first["stages"].items():
            ops = "" if row["ops"] is None else f"{row['ops']:.0f}"
            cells = [f"{row['ms']:.3f}", f"{row['ms'] / first['ms']:.1%}", f"{row['cpu_ms']:.3f}"]
            cells += [f"{row['calls']:.1f}", ops]
            for name in names[1:]:
                other = found[name][c]["stages"].get(stage)
                cells.append("" if other is None else f"{other['cpu_ms']:.3f}, {row['cpu_ms'] / other['cpu_ms']:.2f}")
            table.add_row(stage, *cells)
        Console(width=140).print(table)
        for name in names[1:]:
            other = found[name][c]
            for key in ("host_ms", "propose_host_ms", "ms", "accept_length", "wall_seconds"):
                print(f"  {key}: {first[key]:.2f}, {name} {other[key]:.2f}, ratio {first[key] / other[key]:.3f}")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, help="another checkout")
    parser.add_argument("--drafters", type=int, default=0, help="given to requests in turn, tasks' first (0: routed)")
    parser.add_argument("--trace", type=Path, help="keep the traces there")
    parser.add_argument("--json", type=Path, help="also write everything there")
    args, rest = parser.parse_known_args(argv)
    options = from_arguments(build_parser().parse_args(["demo", *DEFAULTS, *rest]))
    print(f"Machine: {describe(options).sentence()}.")
    checkouts = {"this": HERE} | ({"other": args.against.resolve()} if args.against else {})
    found = measure(options, checkouts, args.drafters, args.trace)
    if args.json:
        args.json.write_text(json.dumps(found, indent=1), encoding="utf-8")
    show(found)
    return DONE


if __name__ == "__main__":
    sys.exit(main())
