"""A second, smaller target for the demo, and one sorted drafter that serves both targets (S2D, arXiv 2407.01955).

The small target learns from the demo's. The drafter is the demo target's first layers, trained further with all their
exits; then, by hard labels, on the answers of both targets. It lies in the first pool, and the small target's pool
names it there: one folder in two pools, each with thresholds of its own.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from sglang_hetero_spec.build.align.settings import AlignSettings
from sglang_hetero_spec.build.drafters import Alignments, Job, align_all
from sglang_hetero_spec.build.profile.adaptive import tune
from sglang_hetero_spec.build.profile.candidates import Candidate
from sglang_hetero_spec.build.profile.exits import Adaptive
from sglang_hetero_spec.build.profile.measure import ProfileOptions
from sglang_hetero_spec.build.profile.records import Settings
from sglang_hetero_spec.build.prompts import PROMPTS_NAME, read_prompts, write_prompts
from sglang_hetero_spec.build.regenerate import Options, read_answers, regenerate
from sglang_hetero_spec.build.regenerate.answers import to_line
from sglang_hetero_spec.build.sorted_file import write_exits
from sglang_hetero_spec.build.split import order
from sglang_hetero_spec.demo.costly import make_costly
from sglang_hetero_spec.demo.kinds import NOT_SERVED
from sglang_hetero_spec.demo.why import PROFILE_NAME
from sglang_hetero_spec.errors import HeteroError
from sglang_hetero_spec.files import write_json, write_lines, write_whole
from sglang_hetero_spec.pool import MANIFEST_NAME, checkpoint_size, write_pool_manifest

SMALL, BOTH = "small", "both"
EXITS = [1, 2, 3]
TRAIN, HELDOUT = "train.jsonl", "heldout.jsonl"
_SMALL_SHAPE = {
    "hidden_size": 192,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "num_key_value_heads": 1,
    "head_dim": 64,
    "intermediate_size": 576,
}
ENGINE_FLAGS = ("--dtype", "float32", "--mem-fraction-static", "0.8", "--max-total-tokens", "24000")


@dataclass(frozen=True)
class TwoSettings:
    """Tokens that the small target and the drafter's two stages learn from; answers: how many of the small target the
    drafter learns from; target_params: what the first target is made as costly as for the measurement, the small one in
    proportion; the rest: of the measurement."""

    small_tokens: int = 300_000
    first_tokens: int = 150_000
    both_tokens: int = 300_000
    answers: int = 5_000
    target_params: int = 100_000_000
    num_prompts: int = 3
    max_new_tokens: int = 48
    num_steps: tuple[int, ...] = (4, 8)

    def small(self) -> AlignSettings:
        return _align(
            {"optimizer": "muon", "batch_tokens": 3072, "evaluations": 4}, self.small_tokens, shape=_SMALL_SHAPE
        )

    def first(self, layers: bool = True) -> AlignSettings:
        """layers: from the target's own, else from a drafter that is given."""
        return _align(
            _LAYERS, self.first_tokens, learning_rate=6e-4, exits=EXITS, layers=len(EXITS) if layers else None
        )

    def both(self) -> AlignSettings:
        return _align(_LAYERS, self.both_tokens, learning_rate=4e-4, exits=EXITS, loss="ce")


_LAYERS = {"optimizer": "adamw", "batch_tokens": 4096, "evaluations": 2, "heldout_most": 120}


def _align(common: Mapping[str, object], tokens: int, **others: object) -> AlignSettings:
    given = {name: value for name, value in others.items() if value is not None}
    return AlignSettings.model_validate({**common, "tokens": tokens, "patience": 0, **given})


@dataclass(frozen=True)
class Bench:
    """Where things are made. target: the demo's; split: its answers, as a build has them; prompts: all that the build
    knew; folder: scratch. Every step is found again where it was made before."""

    target: Path
    split: Path
    prompts: Path
    folder: Path
    settings: TwoSettings
    say: Callable[[str], None]

    @property
    def small(self) -> Path:
        return self.folder / "small-target"

    @property
    def small_split(self) -> Path:
        return self.folder / "small-split"

    @property
    def drafter(self) -> Path:
        return self.folder / BOTH

    def make(self) -> None:
        self.align(SMALL, self.settings.small(), self.split, self.small)
        self.answer()
        first = self.folder / "first"
        self.align("first", self.settings.first(), self.split, first)
        joined = self.folder / "both-split"
        join_answers(joined, {"a": self.split, "b": self.small_split})
        self.align(BOTH, self.settings.both(), joined, self.drafter, base=first)

    def align(
        self,
        name: str,
        settings: AlignSettings,
        split: Path,
        out: Path,
        *,
        base: Path | None = None,
        target: Path | None = None,
    ) -> None:
        """One drafter of all tasks. target: None for the demo's. HeteroError if it cannot be made."""
        if any(out.glob("*.safetensors")):
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / f"{name}.yaml"
        write_lines(config, [yaml.safe_dump(settings.model_dump())], HeteroError)
        chosen = Alignments(
            target=str(target or self.target),
            base=None if base is None else str(base),
            split=split,
            config=config,
            cache=self.folder / "cache",
            logs=self.folder,
            jobs=None,
        )
        failed = align_all(chosen, [Job(name, None, out)], self.say)
        if failed:
            raise HeteroError(f"`{name}` could not be aligned: {failed[0].reason}")

    def answer(self) -> None:
        """The small target's answers to the held-out prompts and to some others, split as the first target's."""
        if (self.small_split / HELDOUT).is_file():
            return
        heldout = read_prompts(self.split / PROMPTS_NAME)
        known = {prompt.id for prompt in heldout}
        others = sorted(
            (prompt for prompt in read_prompts(self.prompts) if prompt.id not in known),
            key=lambda prompt: order(prompt.id),
        )
        self.small_split.mkdir(parents=True, exist_ok=True)
        asked = self.folder / "small-prompts.jsonl"
        write_prompts(asked, [*heldout, *others[: self.settings.answers]])
        answers = self.folder / "small-answers.jsonl"
        regenerate(str(self.small), str(asked), str(answers), Options(max_new_tokens=192, batch=64, flags=ENGINE_FLAGS))
        for name, is_heldout in ((TRAIN, False), (HELDOUT, True)):
            lines = (to_line(answer) for answer in read_answers(answers) if (answer.id in known) == is_heldout)
            write_whole(self.small_split / name, lines, HeteroError)
        write_prompts(self.small_split / PROMPTS_NAME, heldout)

    def tuned(self) -> dict[str, Adaptive]:
        """The thresholds and chain length of the drafter for each target, by the folder of its files ("" and SMALL)."""
        large, small = (checkpoint_size(path).num_params for path in (self.target, self.small))
        wanted = self.settings.target_params
        found = {}
        for name, target, split, params in (
            ("", self.target, self.split, wanted),
            (SMALL, self.small, self.small_split, wanted * small // large),
        ):
            costly = make_costly(target, self.folder / f"target-{params}", params) if params else None
            shapes = tuple(Settings(steps, 1, steps + 1) for steps in self.settings.num_steps)
            options = ProfileOptions(
                (1,), self.settings.num_prompts, self.settings.max_new_tokens, shapes, passes=1, flags=ENGINE_FLAGS
            )
            self.say(f"two targets: measuring the exits with the {name or 'larger'} target")
            out = self.profile(name)
            found[name] = tune(costly.path if costly else target, BOTH, self.drafter, split, out, options).best(1)
        return found

    def profile(self, name: str) -> Path:
        return self.folder / f"profile-{name or 'larger'}.jsonl"


def join_answers(out: Path, splits: Mapping[str, Path]) -> None:
    """Answers of several targets to the same prompts, their ids marked, as one split without prompts."""
    for part in (TRAIN, HELDOUT):
        lines = (
            to_line(replace(answer, id=f"{mark}{answer.id}"))
            for mark, split in splits.items()
            for answer in read_answers(split / part)
        )
        out.mkdir(parents=True, exist_ok=True)
        write_whole(out / part, lines, HeteroError)


def add_second_target(bench: Bench, out: Path) -> None:
    """Publish what `bench` made beside the published first target: out/small, and one more drafter in out/pool."""
    bench.make()
    tuned = bench.tuned()
    copied = ((bench.small, out / SMALL / "target"), (bench.drafter, out / "pool" / "drafters" / BOTH))
    for source, place in copied:
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(source, place, ignore=shutil.ignore_patterns(*NOT_SERVED))
    # `profile` knows a sorted drafter by it.
    write_exits(out / "pool" / "drafters" / BOTH, EXITS)
    add_to_pool(out / "pool", bench.target, tuned[""].candidate)
    write_small_pool(out / SMALL / "pool", out / SMALL / "target", out / "pool", tuned[SMALL].candidate)
    shutil.copyfile(bench.profile(SMALL), out / SMALL / "pool" / PROFILE_NAME)
    about = out / "made.json"
    made = json.loads(about.read_text(encoding="utf-8"))
    recipes = {
        name: settings.model_dump()
        for name, settings in zip(
            (SMALL, "first", BOTH),
            (bench.settings.small(), bench.settings.first(), bench.settings.both()),
            strict=True,
        )
    }
    chosen = {name or "target": vars(item.chosen) for name, item in tuned.items()}
    write_json(about, made | {"two_targets": {"recipes": recipes, "chosen": chosen}}, HeteroError)


def entry(chosen: Candidate, path: str, external: bool) -> dict[str, Any]:
    """Of a pool.json."""
    whole = chosen.entry(BOTH) | {"path": path, "external": external}
    whole["exits"], whole["thresholds"] = list(whole["exits"]), list(whole["thresholds"])
    return {key: value for key, value in whole.items() if key != "vocab" and value is not False}


def add_to_pool(pool: Path, target: Path, chosen: Candidate) -> None:
    """The drafter, which lies in the pool already, joins its manifest, in place of one that it had."""
    before: dict[str, Any] = json.loads((pool / MANIFEST_NAME).read_text(encoding="utf-8"))
    others = [drafter for drafter in before["drafters"] if drafter["name"] != BOTH]
    write_pool_manifest(
        pool,
        drafters=[*others, entry(chosen, f"drafters/{BOTH}", external=False)],
        fallback_drafter=before["fallback_drafter"],
        tasks=before["tasks"],
        router=before.get("router"),
        target=target,
        target_name=before["target"]["name_or_path"],
        merged_draft_tokens=before.get("merged_draft_tokens"),
    )


def write_small_pool(pool: Path, target: Path, first: Path, chosen: Candidate) -> None:
    """Its drafters lie in the pool `first`, two folders up, and nowhere else."""
    pool.mkdir(parents=True, exist_ok=True)
    up = Path("..", "..", first.name, "drafters")
    known = json.loads((first / MANIFEST_NAME).read_text(encoding="utf-8"))
    (general,) = (drafter for drafter in known["drafters"] if drafter["name"] == known["fallback_drafter"])
    drafters = [
        entry(chosen, str(up / BOTH), external=True),
        general | {"path": str(up / Path(general["path"]).name), "external": True},
        {"name": "none", "kind": "none"},
    ]
    write_pool_manifest(pool, drafters=drafters, fallback_drafter=BOTH, target=target, target_name="../target")
