"""build.yaml: everything that a build may be told. Unknown keys and wrong types are refused in one sentence."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from sglang_hetero_spec.build.align.settings import AlignSettings
from sglang_hetero_spec.errors import HeteroError

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(gt=0, lt=1)]


class RecipeError(HeteroError):
    """A recipe that cannot be followed; `str(error)` is one sentence."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class PartitionSettings(_Strict):
    """n_tasks: null chooses within the bounds. use_labels: take the log's own `task` labels instead of finding any.

    with_answers: cluster prompts together with what the target answered. merge_tolerance: after the profile, tasks
    become one where one drafter's accept length on each is that close to the task's best (relative; 0 merges none;
    null: 0.02 for tasks that were found, 0 for labels, which clients may name).
    """

    n_tasks: Count | None = None
    min_tasks: Count = 1
    max_tasks: Count = 16
    embedder: str | None = None
    use_labels: bool = False
    with_answers: bool = False
    merge_tolerance: Annotated[float, Field(ge=0, lt=1)] | None = None

    @property
    def tolerance(self) -> float:
        """`merge_tolerance` with its default."""
        if self.merge_tolerance is not None:
            return self.merge_tolerance
        return 0.0 if self.use_labels else 0.02


class RegenerateSettings(_Strict):
    """How the target is asked; `url` of running servers, else an engine of our own with `flags` of SGLang."""

    url: str | None = None
    temperature: Annotated[float, Field(ge=0)] = 0.0
    max_new_tokens: Count = 512
    batch: Count = 32


class ProfileSettings(_Strict):
    """num_steps: longest chains that are tried, each a shape. num_prompts: held out, of each task."""

    concurrency: list[Count] = [1, 4, 16]
    num_prompts: Count = 16
    max_new_tokens: Count = 128
    num_steps: list[Count] = [4]
    passes: Count = 2


class AssignSettings(_Strict):
    """traffic: task -> weight (null: as many as its prompts in the log). concurrency: requests in flight that the
    pool is made for, one of the profile's. shorter_chains: whether chains shorter than the measured ones are candidates
    too; their gain is a matter of what the target costs, so it must be the one that will be served."""

    max_drafters: Count | None = None
    max_memory: Count | None = None
    concurrency: Count | None = None
    traffic: dict[str, float] | None = None
    shorter_chains: bool = True


class Recipe(_Strict):
    """drafters: name -> checkpoint, candidates beside the aligned ones. base: what alignment starts from (null: as
    `align` says). base_tokens: without `base`, tokens of all tasks together that one drafter learns from before the
    general drafter and those of the tasks go on from it (null: each starts by itself). ngram: whether an n-gram drafter
    of each task, with the target's answers to begin with, is a candidate too. tokenizer: of the drafters that
    are made here, with `align.shape` and no `base` (null: the target's). jobs: alignments at a time
    (null: one per two cores). flags: SGLang's, for every server.

    heldout_share: of each task's prompts, for early stop and profile, never trained on. measure: serve the finished
    pool for the report.
    """

    target: str
    prompts: str
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    heldout_share: Share = 0.1
    base: str | None = None
    base_tokens: Count | None = None
    tokenizer: str | None = None
    drafters: dict[str, str] = {}
    ngram: bool = False
    jobs: Count | None = None
    flags: list[str] = []
    measure: bool = True
    partition: PartitionSettings = PartitionSettings()
    regenerate: RegenerateSettings = RegenerateSettings()
    align: AlignSettings = AlignSettings()
    profile: ProfileSettings = ProfileSettings()
    assign: AssignSettings = AssignSettings()

    @field_validator("target", "prompts")
    @classmethod
    def _named(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("it is empty")
        return value


def load_recipe(path: Path | None, overrides: Mapping[str, Any]) -> Recipe:
    """The file's fields (paths in it are relative to the file), replaced by `overrides`; dotted keys reach inside.

    RecipeError in one sentence.
    """
    fields = _resolved(_read(path), path.parent) if path is not None else {}
    for key, value in overrides.items():
        _put(fields, key, value)
    try:
        return Recipe.model_validate(fields)
    except ValidationError as error:
        raise RecipeError(_sentence(error.errors(include_url=False)[0], path)) from None


def _read(path: Path) -> dict[str, Any]:
    import yaml

    try:
        fields = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"{path} cannot be read ({error.strerror}); check the path.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is not YAML ({' '.join(str(error).split())[:160]}); correct it.") from None
    if not isinstance(fields, dict):
        raise RecipeError(f"{path} holds no `key: value` lines; give at least `target` and `prompts`.")
    return fields


def _resolved(fields: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Paths in a recipe that exist beside it; anything else may be a model's name."""

    def path(value: Any) -> Any:
        found = folder / value if isinstance(value, str) else None
        return str(found) if found is not None and found.exists() else value

    done = fields | {key: path(fields[key]) for key in ("target", "prompts", "base", "tokenizer") if key in fields}
    if isinstance(fields.get("drafters"), dict):
        done["drafters"] = {name: path(value) for name, value in fields["drafters"].items()}
    return done


def _put(fields: dict[str, Any], key: str, value: Any) -> None:
    *outer, last = key.split(".")
    for name in outer:
        inner = fields.get(name)
        fields[name] = dict(inner) if isinstance(inner, dict) else {}
        fields = fields[name]
    fields[last] = value


def _sentence(error: Any, path: Path | None) -> str:
    where = str(path) if path is not None else "The recipe"
    field = ".".join(str(part) for part in error["loc"])
    if error["type"] == "missing":
        return f"{where}: `{field}` is missing; give it, or --{field.replace('_', '-')}."
    if error["type"] == "extra_forbidden":
        return f"{where}: there is no `{field}`; the keys are {', '.join(Recipe.model_fields)}."
    return f"{where}: `{field or 'it'}` cannot be {str(error['input'])[:80]!r} ({error['msg']}); correct it."
