"""What decides the answers, kept beside them: answers made otherwise are never mixed."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from sglang_hetero_spec.build.regenerate.errors import RegenerateError, cannot_write
from sglang_hetero_spec.files import replace_whole

# Deciding field -> how the user gives it.
_FLAGS = {
    "target": "--target",
    "temperature": "--temperature",
    "max_new_tokens": "--max-new-tokens",
    "seed": "--seed",
}


@dataclass(frozen=True)
class Settings:
    """target: its fingerprint. seed: 0 where the temperature is 0, for it then decides nothing.

    flags: SGLang's own; recorded only, for a resumed run may need others (less memory).
    """

    target: str
    temperature: float
    max_new_tokens: int
    seed: int
    flags: tuple[str, ...] = ()

    def params(self, prompt_id: str, room: int, *, by_processor: bool) -> dict[str, Any]:
        """SGLang's sampling parameters for one prompt. by_processor: the seed goes by `seeded.SeededSampler`."""
        params: dict[str, Any] = {"temperature": self.temperature, "top_p": 1.0, "top_k": -1, "max_new_tokens": room}
        if self.temperature == 0:
            return params
        if by_processor:
            from sglang_hetero_spec.build.regenerate.seeded import custom_params

            custom = custom_params(self.prompt_seed(prompt_id), self.temperature)
            return params | {"temperature": 0.0, "custom_params": custom}
        return params | {"sampling_seed": self.prompt_seed(prompt_id)}

    def prompt_seed(self, prompt_id: str) -> int:
        """A function of seed and prompt alone: neither order nor batch nor an interruption matters. In [0, 2**63)."""
        digest = hashlib.sha256(f"{self.seed}:{prompt_id}".encode()).digest()
        return int.from_bytes(digest[:8], "big") >> 1


class _Saved(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    target: str
    temperature: float
    max_new_tokens: int
    seed: int
    flags: tuple[str, ...]


def settings_path(out: Path) -> Path:
    return out.with_name(out.name.removesuffix(".jsonl") + ".settings.json")


def claim(out: Path, settings: Settings, has_answers: bool) -> bool:
    """Note `settings` beside `out`. True if the answers there were made with the very same, flags included.

    RegenerateError if there are answers that were made with others.
    """
    path = settings_path(out)
    saved = _load(path) if path.exists() else None
    if has_answers:
        if saved is None:
            raise RegenerateError(
                f"{out} has answers of which nothing says how they were made ({path.name} is missing); choose another"
                " --out, or remove them."
            )
        for field, flag in _FLAGS.items():
            was, now = getattr(saved, field), getattr(settings, field)
            if was != now:
                values = "another model" if field == "target" else f"{was}, not {now}"
                raise RegenerateError(
                    f"{out} was begun with {flag} {values}; give the same, choose another --out, or remove it."
                )
    _save(path, settings)
    return saved == settings


def _load(path: Path) -> Settings:
    try:
        return Settings(**_Saved.model_validate_json(path.read_bytes()).model_dump())
    except OSError as error:
        raise RegenerateError(f"{path} cannot be read ({error.strerror}); check its permissions.") from None
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the file"
        raise RegenerateError(
            f"{path} is not what `regenerate` wrote ({field}: {first['msg'].lower()}); remove it and the answers."
        ) from None


def _save(path: Path, settings: Settings) -> None:
    try:
        replace_whole(path, [json.dumps(asdict(settings), indent=2).encode(), b"\n"])
    except OSError as error:
        raise cannot_write(path, error) from None
