"""Everything about a run that is known before a server starts; all that can be refused is refused here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sglang_hetero_spec.bench.arms import NAMES, NONE, Arm, plan_arms
from sglang_hetero_spec.bench.arms_file import read_arms_file
from sglang_hetero_spec.bench.errors import BenchError
from sglang_hetero_spec.bench.metadata import source_state, versions
from sglang_hetero_spec.bench.options import GROUPED, BenchOptions
from sglang_hetero_spec.bench.prompt_source import Source, demo_source, file_source
from sglang_hetero_spec.bench.ranking import read_costs
from sglang_hetero_spec.bench.records import FORMAT, SCHEMA_VERSION
from sglang_hetero_spec.bench.servers import Engine, find_remotes, group_servers, plan_servers
from sglang_hetero_spec.bench.workload import Workload, make_workload
from sglang_hetero_spec.build.regenerate import target as targets
from sglang_hetero_spec.commands.checked import checked_pool
from sglang_hetero_spec.commands.progress import Reporter
from sglang_hetero_spec.demo.options import CONTEXT
from sglang_hetero_spec.demo.run import cost_note, costly_target
from sglang_hetero_spec.demo.shipped import find_shipped
from sglang_hetero_spec.pool import Pool, checkpoint_size, local_folder
from sglang_hetero_spec.pool.digest import file_sha256, weights_sha256
from sglang_hetero_spec.serving import machine
from sglang_hetero_spec.serving.remote import Remote
from sglang_hetero_spec.serving.server import ServerPlan

MAX_HASHED_BYTES = 32 << 30  # half a minute to read


@dataclass(frozen=True)
class Target:
    """What is served. folder: on this disk, None where only a hub knows it. note: what was done to its cost."""

    path: str
    folder: Path | None
    num_params: int | None
    note: str | None

    def as_dict(self) -> dict[str, Any]:
        small = self.folder is not None and checkpoint_size(self.folder).weight_bytes <= MAX_HASHED_BYTES
        return {
            "path": self.path,
            "num_params": self.num_params,
            "weights_sha256": weights_sha256(self.folder) if self.folder is not None and small else None,
            "note": self.note,
        }


@dataclass(frozen=True)
class RunPlan:
    """groups: servers that are up together, by name, those that run already in all of them."""

    options: BenchOptions
    target: Target
    pool: Pool
    work: Workload
    arms: tuple[Arm, ...]
    groups: tuple[tuple[ServerPlan, ...], ...]
    remotes: dict[str, Remote]
    notes: tuple[str, ...]

    def arms_of(self, group: Sequence[ServerPlan]) -> list[Arm]:
        """Those whose servers are up with this group; those of running servers belong to the first."""
        names = {plan.name for plan in group} | (set(self.remotes) if group is self.groups[0] else set())
        return [arm for arm in self.arms if arm.server in names]

    @property
    def num_requests(self) -> int:
        """In all blocks."""
        options = self.options
        return len(self.arms) * len(options.settings) * options.repetitions * len(self.work.items)


def make_plan(options: BenchOptions, reporter: Reporter) -> RunPlan:
    """HeteroError, UsageError or PoolError, in one sentence, for what cannot be run."""
    more = () if options.arms_file is None else read_arms_file(options.arms_file, NAMES)
    source, target, pool = _inputs(options, reporter)
    work = _workload(options, source, target)
    planned = plan_arms(pool, work, read_costs(pool), options.arms, more, options.standalone)
    remotes = find_remotes(planned.arms, options.urls)
    engine = Engine(
        target=target.path,
        device=options.device,
        dtype=options.dtype,
        threads=options.threads,
        context=_context(options),
        longest=work.longest + options.max_new_tokens,
        busiest=max(setting.busiest(len(work.items)) for setting in options.settings),
    )
    plans = plan_servers(planned.arms, engine, list(remotes))
    groups = group_servers(list(plans.values()), engine, target.num_params or 0, options.order == GROUPED)
    notes = [*work.notes, *planned.notes]
    if len(groups) > 1:
        why = "as asked for" if options.order == GROUPED else "since the memory does not hold all"
        together = "; ".join(", ".join(plan.title for plan in group) for group in groups)
        notes.append(
            f"{len(plans)} servers run in {len(groups)} groups, one after the other, {why} ({together}): blocks"
            " alternate within a group only."
        )
    return RunPlan(options, target, pool, work, planned.arms, tuple(map(tuple, groups)), remotes, tuple(notes))


def _inputs(options: BenchOptions, reporter: Reporter) -> tuple[Source, Target, Pool]:
    if options.target is None or options.pool is None:
        shipped = find_shipped()
        source = demo_source(shipped) if options.prompts is None else file_source(options.prompts)
        pool = checked_pool(str(shipped.pool), str(shipped.target))
        return source, _target(str(shipped.target), options, reporter), pool
    targets.check_target(options.target, with_weights=True)
    source = file_source(options.prompts or "")
    return source, _target(options.target, options, reporter), checked_pool(options.pool, options.target)


def _target(path: str, options: BenchOptions, reporter: Reporter) -> Target:
    folder = local_folder(path)
    if options.target_params:
        if folder is None:
            raise BenchError(f"--target-params needs the target's folder, and {path} is none; give the folder.")
        costly = costly_target(folder, options.target_params, reporter)
        return Target(str(costly.path), costly.path, costly.num_params, cost_note(costly))
    params = None if folder is None else checkpoint_size(folder).num_params
    return Target(path, folder, params, None)


def _context(options: BenchOptions) -> int | None:
    return options.context or (CONTEXT if options.is_demo else None)


def _workload(options: BenchOptions, source: Source, target: Target) -> Workload:
    context = _context(options) or targets.context_of(target.path)
    room = None if context is None else context - options.max_new_tokens - 1
    tokenizer = targets.load_tokenizer(target.path)
    return make_workload(source, tokenizer, options.num_prompts, options.prompt_tokens, room)


def metadata(plan: RunPlan, command: Sequence[str]) -> dict[str, Any]:
    """As it is when the run begins: not complete, and nothing known of the servers but their options."""
    options, (commit, clean) = plan.options, source_state()
    servers: dict[str, Any] = {
        one.name: {"options": list(one.options), "version": None, "model_path": None, "started_by_us": True}
        for group in plan.groups
        for one in group
    }
    for name, remote in plan.remotes.items():
        servers[name] = {"options": [str(remote)], "version": None, "model_path": None, "started_by_us": False}
    return {
        "format": FORMAT,
        "schema_version": SCHEMA_VERSION,
        "command": list(command),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": None,
        "complete": False,
        "versions": versions(),
        "commit": commit,
        "clean_tree": clean,
        "machine": asdict(machine.describe(options.device, options.dtype, options.threads)),
        "engine": {"kind": "sglang", "servers": servers},
        "target": plan.target.as_dict(),
        "pool": {"path": str(plan.pool.root), "manifest_sha256": file_sha256(plan.pool.root / "pool.json")},
        "workload": {
            "name": plan.work.name,
            "sha256": plan.work.sha256,
            "num_prompts": len(plan.work.items),
            "tasks": plan.work.tasks,
            "max_new_tokens": options.max_new_tokens,
            "temperature": options.temperature,
        },
        "settings": [setting.name for setting in options.settings],
        "repetitions": options.repetitions,
        "warm_up": len(plan.work.warm_up),
        "arms": [arm.as_dict() for arm in plan.arms],
        "baseline": NONE,
        "seed": options.seed,
        "order": options.order,
        "groups": [[arm.name for arm in plan.arms_of(group)] for group in plan.groups],
        "notes": list(plan.notes),
    }
