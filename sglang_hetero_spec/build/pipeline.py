"""`build`: partition, regenerate, align, profile, assign, fit the router, report; each goes on where it was left."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sglang_hetero_spec.build.adapters import place_base, shared_base
from sglang_hetero_spec.build.align.settings import AlignSettings
from sglang_hetero_spec.build.assemble import assemble
from sglang_hetero_spec.build.assign.assignment import assign
from sglang_hetero_spec.build.assign.fit_router import fit_priced_router
from sglang_hetero_spec.build.assign.result import Assignment, read_assignment, write_assignment
from sglang_hetero_spec.build.corpora import corpus_name, make_corpora
from sglang_hetero_spec.build.drafters import Alignments, Job, NotMade, align_all
from sglang_hetero_spec.build.labelled import write_labelled
from sglang_hetero_spec.build.layout import BASE, GENERAL, Layout
from sglang_hetero_spec.build.locks import directory_lock
from sglang_hetero_spec.build.merging import HELDOUT_NAME, PROFILE_NAME, merged_traffic, write_merged
from sglang_hetero_spec.build.options import profile_options
from sglang_hetero_spec.build.partition import Partition, Partitioner, TaskFound, distinct_prompts, partition_log
from sglang_hetero_spec.build.partition.run import read_tasks
from sglang_hetero_spec.build.profile.measure import profile
from sglang_hetero_spec.build.profile.records import read_profile
from sglang_hetero_spec.build.profile.serve_pool import measure_routings
from sglang_hetero_spec.build.prompts import PROMPTS_NAME, LogError, read_log, read_prompts, write_prompts
from sglang_hetero_spec.build.recipe import Recipe
from sglang_hetero_spec.build.regenerate import Options, regenerate
from sglang_hetero_spec.build.regenerate.target import check_target, fingerprint
from sglang_hetero_spec.build.report.measured import MEASURED_NAME, runs_of, write_measured
from sglang_hetero_spec.build.report.write import write_report
from sglang_hetero_spec.build.split import write_split
from sglang_hetero_spec.build.stages import Stage
from sglang_hetero_spec.errors import HeteroError
from sglang_hetero_spec.files import write_json, write_lines
from sglang_hetero_spec.pool import MANIFEST_NAME, Pool
from sglang_hetero_spec.pool import file_sha256 as digest

Say = Callable[[str], None]


@dataclass(frozen=True)
class Built:
    """not_made: drafters whose alignment failed, with the reason. seconds: of this run."""

    pool: Pool
    assignment: Assignment
    not_made: tuple[NotMade, ...]
    seconds: float


def build(recipe: Recipe, out: str | Path, say: Say = lambda text: None) -> Built:
    """Build a pool in the folder `out`. Interrupted at any moment, the same call goes on and ends with the same pool.

    HeteroError in one sentence for what cannot be used, LockedError where another build writes `out`.
    """
    began = time.monotonic()
    layout = Layout(Path(out))
    check_target(recipe.target, with_weights=True)
    _check_log(Path(recipe.prompts))
    with directory_lock(layout.pool, "build", f"hetero-spec build --out {out}"):
        layout.work.mkdir(parents=True, exist_ok=True)
        run = _Build(recipe, layout, say)
        not_made = run.all_stages()
        pool = run.finish()
    return Built(pool, read_assignment(layout.assignment), not_made, time.monotonic() - began)


@dataclass(frozen=True)
class _Build:
    recipe: Recipe
    layout: Layout
    say: Say

    def all_stages(self) -> tuple[NotMade, ...]:
        if self.recipe.partition.with_answers:
            self._regenerate(self._prompts())
            self._partition()
        else:
            self._partition()
            self._regenerate(self.layout.partition / PROMPTS_NAME)
        self._split()
        not_made = self._align()
        self._profile(not_made)
        self._merge()
        self._assign()
        if len(self._served_tasks()) > 1:
            self._fit_router()
        return not_made

    def _stage(self, name: str, key: Mapping[str, Any], work: Callable[[Path], object]) -> None:
        began = time.monotonic()
        stage = Stage(self.layout.stage(name), key)
        if stage.is_done:
            self.say(f"{name}: done before")
            return
        self.say(f"{name} ...")
        stage.run(lambda folder: work(folder) and None, self.say)
        self.say(f"{name}: done in {time.monotonic() - began:.0f} s")

    # What is served and asked.

    def _prompts(self) -> Path:
        path = self.layout.stage("prompts") / PROMPTS_NAME
        self._stage(
            "prompts",
            {"log": digest(Path(self.recipe.prompts))},
            lambda folder: write_prompts(path, distinct_prompts(read_log(self.recipe.prompts).prompts).prompts),
        )
        return path

    def _partition(self) -> None:
        chosen = self.recipe.partition
        answers = self.layout.answers if chosen.with_answers else None
        key = {
            "log": digest(Path(self.recipe.prompts)), "settings": chosen.model_dump(exclude={"merge_tolerance"}),
            "seed": self.recipe.seed, "answers": None if answers is None else digest(answers),
        }  # fmt: skip

        def work(folder: Path) -> Partition | None:
            if chosen.use_labels:
                return write_labelled(Path(self.recipe.prompts), folder)
            estimator = Partitioner(
                chosen.n_tasks, min_tasks=chosen.min_tasks, max_tasks=chosen.max_tasks, embedder=chosen.embedder,
                random_state=self.recipe.seed,
            )  # fmt: skip
            return partition_log(self.recipe.prompts, folder, answers=answers, estimator=estimator)

        self._stage("partition", key, work)
        tasks = self._tasks()
        self.say("tasks: " + ", ".join(f"{task.id} ({task.size})" for task in tasks))

    def _regenerate(self, prompts: Path) -> None:
        asked = self.recipe.regenerate
        ids = [prompt.id for prompt in read_prompts(prompts)]
        key = {
            "target": fingerprint(self.recipe.target), "settings": asked.model_dump(exclude={"url", "batch"}),
            "seed": self.recipe.seed, "prompts": ids,
        }  # fmt: skip
        options = Options(
            url=asked.url, temperature=asked.temperature, max_new_tokens=asked.max_new_tokens, batch=asked.batch,
            seed=self.recipe.seed, flags=tuple(self.recipe.flags),
        )  # fmt: skip
        self._stage(
            "regenerate", key, lambda folder: regenerate(self.recipe.target, prompts, self.layout.answers, options)
        )

    def _tasks(self) -> tuple[TaskFound, ...]:
        return read_tasks(self.layout.partition)

    def _served_tasks(self) -> tuple[TaskFound, ...]:
        return read_tasks(self.layout.merged)

    # What serves.

    def _split(self) -> None:
        prompts = self.layout.partition / PROMPTS_NAME
        key = {"prompts": digest(prompts), "answers": digest(self.layout.answers), "share": self.recipe.heldout_share}
        self._stage(
            "split",
            key,
            lambda folder: write_split(folder, read_prompts(prompts), self.layout.answers, self.recipe.heldout_share),
        )

    def _base(self) -> str | None:
        """What the alignments go on from: the user's own, or one made here, or nothing. Adapters need one."""
        is_needed = self.recipe.base_tokens is not None or self.recipe.align.lora is not None
        if self.recipe.base is not None or not is_needed:
            return self.recipe.base
        settings = self._align_settings().model_copy(update={"lora": None})
        if self.recipe.base_tokens is not None:
            each = max(1, self.recipe.base_tokens // len(self._tasks()))
            settings = settings.model_copy(update={"tokens": each})

        def work(folder: Path) -> None:
            align_all(self._alignments(None, folder, settings), [Job(BASE, None, self.layout.base)], self.say)

        self._stage(BASE, self._align_key(None, settings), work)
        return str(self.layout.base)

    def _align(self) -> tuple[NotMade, ...]:
        base = self._base()
        settings = self._align_settings()
        if base is not None:
            fresh = "muon" if settings.shape is not None and settings.lora is None else None
            kept = {"shape": None, "layers": None, "optimizer": settings.optimizer or fresh}
            settings = settings.model_copy(update=kept)
        tasks = [task.id for task in self._tasks()]

        def work(folder: Path) -> None:
            names, start = {GENERAL: None, **dict(zip(tasks, tasks, strict=True))}, base
            if settings.lora is not None:  # of the base itself, which is the general drafter
                del names[GENERAL]
                start = place_base(base, self.layout.drafter(GENERAL))
            jobs = [Job(name, task, self.layout.drafter(name)) for name, task in names.items()]
            failed = align_all(self._alignments(start, folder, settings), jobs, self.say)
            write_json(folder / "not_made.json", [vars(item) for item in failed], HeteroError)
            shutil.rmtree(self.layout.cache, ignore_errors=True)

        self._stage("drafters", self._align_key(base, settings) | {"tasks": tasks}, work)
        rows = json.loads((self.layout.stage("drafters") / "not_made.json").read_text(encoding="utf-8"))
        return tuple(NotMade(**row) for row in rows)

    def _align_settings(self) -> AlignSettings:
        return self.recipe.align.model_copy(update={"seed": self.recipe.seed})

    def _align_key(self, base: str | None, settings: AlignSettings) -> dict[str, Any]:
        return {
            "target": fingerprint(self.recipe.target), "base": base and fingerprint(base),
            "train": digest(self.layout.split / "train.jsonl"), "heldout": digest(self.layout.split / "heldout.jsonl"),
            "settings": settings.model_dump(),
        } | ({"tokenizer": fingerprint(self.recipe.tokenizer)} if self.recipe.tokenizer else {})  # fmt: skip

    def _alignments(self, base: str | None, folder: Path, settings: AlignSettings) -> Alignments:
        import yaml

        config = folder / "align.yaml"
        write_lines(config, [yaml.safe_dump(settings.model_dump())], HeteroError)
        layout = self.layout
        return Alignments(
            self.recipe.target, base, layout.split, config, layout.cache, layout.stage("logs"), self.recipe.jobs,
            self.recipe.tokenizer,
        )  # fmt: skip

    def _profile(self, not_made: tuple[NotMade, ...]) -> None:
        chosen, missing = self.recipe.profile, {item.name for item in not_made}
        names = [name for name in (GENERAL, *(task.id for task in self._tasks())) if name not in missing]
        folders = {name: self.layout.drafter(name) for name in names}
        folders |= self._corpora() | {name: Path(path) for name, path in self.recipe.drafters.items()}
        key = {
            "drafters": {name: fingerprint(str(folder)) for name, folder in folders.items()},
            "prompts": digest(self.layout.split / PROMPTS_NAME), "target": fingerprint(self.recipe.target),
            "settings": chosen.model_dump(), "flags": self.recipe.flags,
        }  # fmt: skip
        given = [f"{name}={folder}" for name, folder in folders.items()]
        prompts = self.layout.split / PROMPTS_NAME
        self._stage(
            "profile",
            key,
            lambda folder: profile(
                self.recipe.target,
                given,
                prompts,
                self.layout.profile,
                profile_options(self.recipe),
                answers=self.layout.answers,
            ),
        )

    def _corpora(self) -> dict[str, Path]:
        """Folders of n-gram drafters, by name."""
        if not self.recipe.ngram:
            return {}
        tasks, answers = [task.id for task in self._tasks()], self.layout.split / "train.jsonl"
        key = {"answers": digest(answers), "tasks": tasks, "target": fingerprint(self.recipe.target)}
        self._stage("corpora", key, lambda folder: make_corpora(folder, answers, tasks, self.recipe.target))
        return {corpus_name(task): self.layout.corpus(corpus_name(task)) for task in tasks}

    def _merge(self) -> None:
        layout, tolerance = self.layout, self.recipe.partition.tolerance
        key = {
            "profile": digest(layout.profile), "tolerance": tolerance,
            "prompts": digest(layout.partition / PROMPTS_NAME), "heldout": digest(layout.split / PROMPTS_NAME),
        }  # fmt: skip
        sources = layout.profile, layout.partition / PROMPTS_NAME, layout.split / PROMPTS_NAME
        self._stage("merge", key, lambda folder: write_merged(folder, self._tasks(), *sources, tolerance))
        before, after = len(self._tasks()), len(self._served_tasks())
        if after < before:
            self.say(f"tasks: {before} became {after}, as one drafter serves several of them as well as their own")

    def _assign(self) -> None:
        memory, max_memory = shared_base(self._memory(), self.recipe.assign.max_memory, self._adapters())
        chosen, profile, traffic = self.recipe.assign, self.layout.merged / PROFILE_NAME, self._traffic()
        key = {"profile": digest(profile), "settings": chosen.model_dump(), "traffic": traffic}

        def work(folder: Path) -> None:
            found = assign(
                read_profile(profile),
                traffic=traffic,
                max_drafters=chosen.max_drafters,
                max_memory=max_memory,
                memory=memory if chosen.max_memory is not None else None,
                concurrency=chosen.concurrency,
                derive_shorter=chosen.shorter_chains,
            )
            write_assignment(self.layout.assignment, found)

        self._stage("assign", key, work)

    def _traffic(self) -> dict[str, float]:
        """Requests of each task, in any unit."""
        if self.recipe.assign.traffic is not None:
            return merged_traffic(self.layout.merged, self.recipe.assign.traffic)
        return {task.id: float(task.requests) for task in self._served_tasks()}

    def _memory(self) -> dict[str, int]:
        """Bytes of each drafter's weights on disk."""
        folders = {folder.name: folder for folder in self.layout.stage("drafters").iterdir() if folder.is_dir()}
        folders |= {folder.name: folder for folder in self.layout.stage("corpora").glob("*/")}
        folders |= {name: Path(path) for name, path in self.recipe.drafters.items()}
        return {
            name: sum(file.stat().st_size for file in folder.glob("*.safetensors")) for name, folder in folders.items()
        }

    def _adapters(self) -> list[str]:
        """Drafters made here that adapt the general one."""
        return [task.id for task in self._tasks()] if self.recipe.align.lora is not None else []

    def _fit_router(self) -> None:
        prompts, profile = self.layout.merged / PROMPTS_NAME, self.layout.merged / PROFILE_NAME
        key = {
            "prompts": digest(prompts), "profile": digest(profile),
            "assignment": digest(self.layout.assignment), "seed": self.recipe.seed,
        }  # fmt: skip

        def work(folder: Path) -> None:
            fit_priced_router(
                read_prompts(prompts),
                read_assignment(self.layout.assignment),
                read_profile(profile),
                base_of=dict.fromkeys(self._adapters(), GENERAL),
                random_state=self.recipe.seed,
            ).save(folder)

        self._stage("router", key, work)

    # The result.

    def finish(self) -> Pool:
        layout = self.layout
        pool = assemble(
            self.recipe, layout, read_assignment(layout.assignment), self._served_tasks(), self._thresholds(),
            measured=read_profile(layout.profile),
        )  # fmt: skip
        for source in (layout.merged / "tasks.json", layout.merged / PROFILE_NAME):
            shutil.copyfile(source, layout.pool / source.name)
        self._note_how()
        self._measure()
        write_report(layout.work, layout.pool / "report.html")
        self.say(f"pool: {layout.pool}, {len(pool.drafters)} drafters; report: {layout.pool / 'report.html'}")
        return pool

    def _measure(self) -> None:
        """What the pool really does, beside no speculation and what the profile's model says of it (if the
        recipe wants it measured)."""
        pool, prompts = self.layout.pool, self.layout.merged / HELDOUT_NAME
        assignment = read_assignment(self.layout.assignment)
        key = {
            "pool": digest(pool / MANIFEST_NAME), "assignment": digest(self.layout.assignment),
            "traffic": self._traffic(), "settings": self.recipe.profile.model_dump(),
        }  # fmt: skip
        if not self.recipe.measure:
            if not Stage(self.layout.stage("bench"), key).is_done:  # figures of another pool
                shutil.rmtree(self.layout.stage("bench"), ignore_errors=True)
            return
        options = replace(profile_options(self.recipe), concurrency=(assignment.concurrency,))
        predicted = {task.task: task.expected.tokens_per_second for task in assignment.tasks}

        def work(folder: Path) -> None:
            found = measure_routings(
                self.recipe.target, pool, prompts, ["none", "task"], options, traffic=self._traffic()
            )
            plain, ours = found["none"], found["task"]
            said = {**predicted, None: assignment.expected.tokens_per_second}
            runs = runs_of(plain.tasks + plain.mixed, "none")
            runs += runs_of(ours.tasks + ours.mixed, "hetero", predicted=said)
            write_measured(folder / MEASURED_NAME, runs)

        self._stage("bench", key, work)

    def _thresholds(self) -> dict[str, float] | None:
        """What the manifest says of the router beside where it is."""
        if len(self._served_tasks()) < 2:
            return None
        found = json.loads((self.layout.router / "threshold.json").read_text(encoding="utf-8"))
        chosen = {name: found.get(name) for name in ("min_confidence", "second_below")}
        return {name: float(value) for name, value in chosen.items() if value is not None}

    def _note_how(self) -> None:
        import yaml

        for folder in (self.layout.pool, self.layout.work):
            recipe = yaml.safe_dump(self.recipe.model_dump(), sort_keys=False).rstrip()
            write_lines(folder / "run.yaml", [recipe], HeteroError)
            write_lines(folder / "command.txt", [shlex.join(sys.argv)], HeteroError)


def _check_log(path: Path) -> None:
    if not path.is_file():
        raise LogError(f"{path} is not a file; give the log of prompts.")
