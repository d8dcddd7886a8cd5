"""Drafters of the other kinds for the demo's pool: one that leaves early, adapters of the general one, and n-grams.

All of them are measured beside those that `build` made, with the target made half as costly as `hetero-spec demo` makes
it, and each task gets the one that is the quickest on it. The others stay in the pool too: any request can name them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from sglang_hetero_spec.build.align.settings import AlignSettings
from sglang_hetero_spec.build.drafters import Alignments, Job, align_all
from sglang_hetero_spec.build.layout import GENERAL, Layout
from sglang_hetero_spec.build.profile.measure import ProfileOptions, profile
from sglang_hetero_spec.build.profile.model import Candidate, SpeedModel
from sglang_hetero_spec.build.profile.pooled import pooled
from sglang_hetero_spec.build.profile.records import NO_SETTINGS, NONE, Settings, read_profile
from sglang_hetero_spec.build.prompts import PROMPTS_NAME
from sglang_hetero_spec.demo.costly import make_costly
from sglang_hetero_spec.demo.why import PROFILE_NAME
from sglang_hetero_spec.errors import HeteroError
from sglang_hetero_spec.files import write_json, write_lines
from sglang_hetero_spec.pool import MANIFEST_NAME, write_pool_manifest

SORTED, COPIES = "sorted", "copies"
EXITS = [1, 2, 4]
_NUM_STEPS = 4
_SHAPE = {
    "hidden_size": 64,
    "num_hidden_layers": EXITS[-1],
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 64,
    "intermediate_size": 160,
}
# Of an aligned drafter's folder.
NOT_SERVED = (".*", "*.json.part", "align.json", "curve.jsonl", "sorted.json")
# What an adapter's folder needs.
_ADAPTER_CONFIG, _ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


@dataclass(frozen=True)
class KindSettings:
    """Tokens that the sorted drafter and each adapter learn from; target_params, num_prompts, max_new_tokens: of the
    measurement."""

    sorted_tokens: int = 220_000
    lora_tokens: int = 2_000_000
    target_params: int = 100_000_000
    num_prompts: int = 4
    max_new_tokens: int = 48
    concurrency: int = 4

    def sorted(self) -> AlignSettings:
        return AlignSettings.model_validate(
            {
                **{"tokens": self.sorted_tokens, "optimizer": "muon", "batch_tokens": 4096, "evaluations": 3},
                **{"patience": 0, "exits": EXITS, "shape": _SHAPE},
            }
        )

    def lora(self) -> AlignSettings:
        return AlignSettings.model_validate(
            {
                **{"tokens": self.lora_tokens, "optimizer": "muon", "learning_rate": 0.02, "patience": 0},
                **{"evaluations": 4, "lora": {"r": 8, "alpha": 16.0}},
            }
        )


def adapter_name(task: str) -> str:
    return f"{task}-lora"


def add_kinds(
    target: Path, layout: Layout, out: Path, folder: Path, settings: KindSettings, say: Callable[[str], None]
) -> None:
    """Add the other kinds to the published pool out/pool. layout: of the build; folder: where what is made lies.

    The same call goes on where an interrupted one ended.
    """
    pool = out / "pool"
    tasks = [task["id"] for task in _manifest(pool)["tasks"]]
    _align(target, layout, folder, settings, tasks, say)
    drafters = _drafters(pool, folder, tasks)
    measured = _measure(target, layout, folder, settings, drafters, say)
    model = SpeedModel(pooled(read_profile(measured)))
    _publish(target, pool, folder, drafters, {task: quickest(model, task, drafters) for task in tasks}, measured)


def quickest(model: SpeedModel, task: str, drafters: Sequence[dict[str, Any]]) -> str:
    """The name of the drafter that serves `task` fastest where nothing else is served."""

    def speed(entry: dict[str, Any]) -> float:
        settings = NO_SETTINGS if entry["kind"] == NONE else Settings(*(entry[key] for key in Settings._fields))
        cell = model.cell(Candidate(entry["name"], settings), task, model.default_concurrency())
        return 0.0 if cell is None else cell.tokens_per_second

    return str(max(drafters, key=speed)["name"])


def _align(
    target: Path,
    layout: Layout,
    folder: Path,
    settings: KindSettings,
    tasks: Sequence[str],
    say: Callable[[str], None],
) -> None:
    made = folder / "drafters"
    general = str(layout.drafter(GENERAL))
    for name, base, chosen, jobs in (
        (SORTED, None, settings.sorted(), [Job(SORTED, None, made / SORTED)]),
        ("lora", general, settings.lora(), [Job(adapter_name(t), t, made / adapter_name(t)) for t in tasks]),
    ):
        missing = [job for job in jobs if not any(job.out.glob("*.safetensors"))]
        if not missing:
            continue
        config = folder / f"{name}.yaml"
        folder.mkdir(parents=True, exist_ok=True)
        write_lines(config, [yaml.safe_dump(chosen.model_dump())], HeteroError)
        failed = align_all(
            Alignments(str(target), base, layout.split, config, folder / "cache", folder, None), missing, say
        )
        if failed:
            raise HeteroError(f"`{failed[0].name}` could not be aligned: {failed[0].reason}")


def _drafters(pool: Path, folder: Path, tasks: Sequence[str]) -> list[dict[str, Any]]:
    """Entries of a manifest, paths absolute."""
    known = [entry for entry in _manifest(pool)["drafters"] if entry["kind"] in ("standalone", "none")]
    standing = [
        {**entry, "path": str(pool / entry["path"]), "external": True} if "path" in entry else entry for entry in known
    ]
    chain = {"num_steps": _NUM_STEPS, "topk": 1, "num_draft_tokens": _NUM_STEPS + 1}
    made = folder / "drafters"
    adapters = [
        {
            **{"name": adapter_name(task), "kind": "lora", "base": GENERAL, **chain},
            **{"path": str(made / adapter_name(task)), "external": True},
        }
        for task in tasks
    ]
    early = {
        **{"name": SORTED, "kind": "sorted", "exits": EXITS, "thresholds": [0.5, 0.5], **chain},
        **{"path": str(made / SORTED), "external": True},
    }
    copies = {"name": COPIES, "kind": "ngram", "num_steps": 8, "topk": 4, "num_draft_tokens": 12, "capacity": 1 << 17}
    return [*standing, *adapters, early, copies]


def _measure(
    target: Path,
    layout: Layout,
    folder: Path,
    settings: KindSettings,
    drafters: Sequence[dict[str, Any]],
    say: Callable[[str], None],
) -> Path:
    candidates, measured = folder / "candidates", folder / PROFILE_NAME
    candidates.mkdir(parents=True, exist_ok=True)
    write_pool_manifest(candidates, drafters=drafters, fallback_drafter=GENERAL, target=target, hashes=False)
    costly = make_costly(target, folder / f"target-{settings.target_params}", settings.target_params)
    say(f"kinds: measuring {len(drafters)} drafters")
    options = ProfileOptions(
        concurrency=(settings.concurrency,),
        num_prompts=settings.num_prompts,
        max_new_tokens=settings.max_new_tokens,
        passes=1,
        flags=("--dtype", "float32", "--mem-fraction-static", "0.8", "--max-total-tokens", "24000"),
    )
    profile(costly.path, [str(candidates)], layout.split / PROMPTS_NAME, measured, options)
    return measured


def _publish(
    target: Path,
    pool: Path,
    folder: Path,
    drafters: Sequence[dict[str, Any]],
    drafter_of_task: dict[str, str],
    measured: Path,
) -> None:
    before = _manifest(pool)
    for entry in drafters:
        if entry["kind"] in ("lora", "sorted"):
            _copy(Path(entry["path"]), pool / "drafters" / entry["name"], entry["kind"])
    placed = [_inside(entry) for entry in drafters]
    tasks = [{**task, "drafter": drafter_of_task[task["id"]]} for task in before["tasks"]]
    write_pool_manifest(
        pool,
        drafters=placed,
        fallback_drafter=before["fallback_drafter"],
        tasks=tasks,
        router=before["router"],
        target=target,
        target_name=before["target"]["name_or_path"],
        # Any two of them, whole.
        merged_draft_tokens=sum(sorted(entry.get("num_draft_tokens", 1) for entry in placed)[-2:]) - 1,
    )
    shutil.copyfile(measured, pool / PROFILE_NAME)
    about = pool.parent / "made.json"
    made = json.loads(about.read_text(encoding="utf-8"))
    aligned = {name: yaml.safe_load((folder / f"{name}.yaml").read_text()) for name in (SORTED, "lora")}
    write_json(about, made | {"kinds": aligned}, HeteroError)


def _copy(source: Path, place: Path, kind: str) -> None:
    shutil.rmtree(place, ignore_errors=True)
    if kind == "sorted":
        shutil.copytree(source, place, ignore=shutil.ignore_patterns(*NOT_SERVED))
        return
    place.mkdir(parents=True)
    shutil.copyfile(source / _ADAPTER_WEIGHTS, place / _ADAPTER_WEIGHTS)
    config = json.loads((source / _ADAPTER_CONFIG).read_text(encoding="utf-8"))
    write_json(place / _ADAPTER_CONFIG, config | {"base_model_name_or_path": f"../{GENERAL}"}, HeteroError)


def _inside(entry: dict[str, Any]) -> dict[str, Any]:
    """The entry as the pool has it, where its files lie in drafters/<name>."""
    if "path" not in entry:
        return entry
    kept = {key: value for key, value in entry.items() if key not in ("external", "weights_sha256")}
    return kept | {"path": f"drafters/{entry['name']}"}


def _manifest(pool: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((pool / MANIFEST_NAME).read_text(encoding="utf-8"))
    return found
