"""router.json as written: strict models (an unknown key, `true` for 1 or 4.0 for 4 is an error)."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

FORMAT = "sglang_hetero_spec.router"
SCHEMA_VERSION = 1
CONFIG_NAME = "router.json"
WEIGHTS_NAME = "router.safetensors"
MAX_CLASSES = 256

# The same rule as a task's id in pool.json.
_CLASS_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
ClassName = Annotated[str, Field(pattern=_CLASS_NAME)]
Fraction = Annotated[float, Field(ge=0, le=1)]
NumBytes = Annotated[int, Field(ge=16, le=4096)]
Bits = Annotated[int, Field(ge=6, le=18)]


def is_class_name(name: object) -> bool:
    """Whether `name` may be a task's id."""
    return isinstance(name, str) and re.fullmatch(_CLASS_NAME, name) is not None


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class FeatureSpec(_Strict):
    """What is read of a prompt (bytes of UTF-8) and how it is hashed.

    `bucket_bits` is log2 of the buckets for words, and of those for characters.
    """

    kind: Literal["hashed_ngrams_v1"] = "hashed_ngrams_v1"
    head_bytes: NumBytes = 192
    tail_bytes: NumBytes = 192
    bucket_bits: Bits = 14
    char_ngrams: Annotated[tuple[Annotated[int, Field(ge=1, le=4)], ...], Field(min_length=1)] = (2, 4)

    @field_validator("char_ngrams")
    @classmethod
    def _ascending(cls, lengths: tuple[int, ...]) -> tuple[int, ...]:
        # An empty prompt has two bytes, its ends: a length of 1 or 2 finds something in every prompt.
        if list(lengths) != sorted(set(lengths)) or lengths[0] > 2:
            raise ValueError("lengths must ascend from 1 or 2, none twice")
        return lengths


class Calibration(_Strict):
    """Probabilities are softmax(scores / temperature); the other figures are out of fold, None if unknown.

    `wrapped_accuracy` is that of the same prompts inside a chat template.
    """

    temperature: Annotated[float, Field(gt=0, le=1000)]
    cross_validated_accuracy: Fraction | None = None
    wrapped_accuracy: Fraction | None = None
    ece: Fraction | None = None
    num_prompts: Annotated[int, Field(ge=0)] = 0
    num_folds: Annotated[int, Field(ge=0)] = 0


class Thresholds(_Strict):
    """What the fit proposes for pool.json's `router.min_confidence`, which is the one that counts."""

    min_confidence: Fraction


class RouterConfig(_Strict):
    """The whole of router.json."""

    format: Literal["sglang_hetero_spec.router"] = FORMAT
    schema_version: int = SCHEMA_VERSION
    classes: Annotated[tuple[ClassName, ...], Field(min_length=2, max_length=MAX_CLASSES)]
    features: FeatureSpec
    calibration: Calibration
    thresholds: Thresholds
    weights_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
