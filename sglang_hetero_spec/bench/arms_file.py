"""Arms of the user's own, from a YAML file: a list of objects with name, title, and options, url or drafter."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from sglang_hetero_spec.bench.errors import BenchError


class MoreArm(BaseModel):
    """options: of SGLang, for a server of its own beside those that all arms have (such as EAGLE3 and its draft model);
    url: of a server that runs already; drafter: of the pool, for every request. One of the three."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    title: str = ""
    definition: str = ""
    options: tuple[str, ...] = ()
    url: str | None = None
    drafter: str | None = None

    @model_validator(mode="after")
    def _one_way(self) -> MoreArm:
        if sum((bool(self.options), self.url is not None, self.drafter is not None)) != 1:
            raise ValueError("needs `options`, `url` or `drafter`, one of them")
        return self


_ARMS = TypeAdapter(list[MoreArm])


def read_arms_file(path: str | Path, taken: tuple[str, ...]) -> tuple[MoreArm, ...]:
    """taken: names that are not free. BenchError in one sentence."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8"
        raise BenchError(f"--arms-file {path} cannot be read ({why}); give a YAML file.") from None
    try:
        arms = tuple(_ARMS.validate_python(_lists_as_tuples(yaml.safe_load(text))))
    except yaml.YAMLError as error:
        raise BenchError(
            f"--arms-file {path} is not YAML ({' '.join(str(error).split())[:160]}); correct it."
        ) from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise BenchError(
            f"--arms-file {path}: {where}: {first['msg'].removeprefix('Value error, ').lower()}; give a list of arms,"
            " each with a name, and options, url or drafter."
        ) from None
    names = [*taken, *(arm.name for arm in arms)]
    for arm in arms:
        if names.count(arm.name) > 1:
            raise BenchError(f"--arms-file {path}: the name `{arm.name}` is taken; choose another.")
    return arms


def _lists_as_tuples(value: object) -> object:
    if isinstance(value, list):
        return [
            {key: tuple(map(str, v)) if key == "options" and isinstance(v, list) else v for key, v in item.items()}
            if isinstance(item, dict)
            else item
            for item in value
        ]
    return value
