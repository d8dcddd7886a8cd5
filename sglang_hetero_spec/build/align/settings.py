"""align.yaml: how a drafter is trained. Unknown keys and wrong types are refused in one sentence."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from sglang_hetero_spec.build.align.errors import AlignError
from sglang_hetero_spec.pool.errors import shown

Loss = Literal["forward_kl", "reverse_kl", "tvd++", "ce"]
Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(gt=0, lt=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class LoraSettings(_Strict):
    """A peft adapter on the base drafter. `target_modules`: peft's, null for every linear layer but the head."""

    r: Count = 16
    alpha: Annotated[float, Field(gt=0)] = 32.0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    target_modules: list[str] | None = None


class ShapeSettings(_Strict):
    """A fresh drafter. `architecture` "target" takes the target's own kind of layer. max_position_embeddings: null is
    the target's context; a tokenizer with shorter tokens needs more of them."""

    hidden_size: Count
    num_hidden_layers: Count
    num_attention_heads: Count
    num_key_value_heads: Count | None = None
    head_dim: Count | None = None
    intermediate_size: Count
    max_position_embeddings: Count | None = None
    tie_word_embeddings: bool = True
    architecture: Literal["llama", "target"] = "llama"


class AlignSettings(_Strict):
    """Token counts are of prompt and answer, unpadded.

    tokens: budget of each task (null: `epochs` over its answers). The general drafter gets the sum over the tasks.
    batch_tokens: padded, of one batch on one device.
    vocab: of a drafter whose vocabulary is not the target's: the mode that it will be served in, which is how it reads
    the answers. `tli`: the target's tokens one by one, which every loss can compare. `slem`, `slrs`: the text in its
    own tokens, by `ce`. `auto`: `tli` where nearly all that the target writes is in both vocabularies, else `slem`.
    lora: an adapter on the base drafter; in a `build`, of each task on the general drafter, which `layers` or `shape`
    then make.
    layers: without a base: how many of the target's layers, which ones, or "auto" (measured). shape: a fresh model.
    exits: makes a sorted drafter (arXiv 2407.01955): the layers of each of its nested sub-models, ascending, the last
    all that it has; the loss is the mean over them. `layers: N` then takes the target's first N.
    loss, layers "auto": each candidate is trained on `probe_tokens` (null: a twentieth of the budget); the best goes
    on.
    learning_rate: null takes 6e-3 (Muon), 1e-4 (AdamW), 2e-2 (Muon on LoRA) or 3e-4 (AdamW on LoRA).
    patience: evaluations without a better held-out accept rate before it stops; 0 never stops early.
    cache: keep the target's last hidden states or its `cache_topk` likeliest tokens on disk instead of running the
    target again in every epoch; "auto" keeps hidden states where that is cheaper and fits into `cache_gib`.
    bf16: null uses it where the device computes in it. save_dtype "auto" is the target's.
    """

    loss: Loss | Literal["auto"] = "forward_kl"
    vocab: Literal["auto", "tli", "slem", "slrs"] = "auto"
    tokens: Count | None = None
    epochs: Annotated[float, Field(gt=0)] = 3.0
    optimizer: Literal["muon", "adamw"] | None = None
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.04
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    batch_tokens: Count = 3072
    gradient_accumulation: Count = 1
    max_row_tokens: Count | None = None
    layers: Count | list[Annotated[int, Field(ge=0)]] | Literal["auto"] | None = None
    shape: ShapeSettings | None = None
    lora: LoraSettings | None = None
    exits: list[Count] | None = None
    probe_tokens: Count | None = None
    heldout_share: Share = 0.1
    heldout_most: Annotated[int, Field(ge=2)] = 256
    num_steps: Count = 4
    evaluations: Count = 16
    patience: Annotated[int, Field(ge=0)] = 6
    checkpoints_kept: Annotated[int, Field(ge=1)] = 2
    cache: Literal["auto", "none", "hidden", "topk"] = "auto"
    cache_topk: Count = 64
    cache_gib: Annotated[float, Field(gt=0)] = 8.0
    bf16: bool | None = None
    save_dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0

    @model_validator(mode="after")
    def _one_start(self) -> AlignSettings:
        if self.layers is not None and self.shape is not None:
            raise ValueError("`layers` and `shape` exclude each other: give one")
        if self.exits is not None:
            self._check_exits(self.exits)
        return self

    def _check_exits(self, exits: list[int]) -> None:
        if not exits or any(after <= before for before, after in pairwise(exits)):
            raise ValueError(f"`exits` is {exits}: give numbers of layers, ascending, such as [1, 2, 4]")
        if self.lora is not None:
            raise ValueError("`exits` trains a whole model, `lora` an adapter: give one")
        if self.shape is not None and exits[-1] != self.shape.num_hidden_layers:
            raise ValueError(
                f"`exits` ends with {exits[-1]}, but `shape` has {self.shape.num_hidden_layers} layers: the last exit"
                " is all of them"
            )

    def digest(self) -> str:
        """Hex SHA-256 of all fields."""
        return hashlib.sha256(json.dumps(self.model_dump(), sort_keys=True).encode()).hexdigest()


def load_settings(path: Path | None, overrides: Mapping[str, Any]) -> AlignSettings:
    """Fields of the YAML file, replaced by `overrides` (dotted keys reach into `lora` and `shape`)."""
    fields = _read(path) if path is not None else {}
    for key, value in overrides.items():
        _put(fields, key.split("."), value)
    where = "The settings" if path is None else str(path)
    try:
        settings = AlignSettings.model_validate(fields)
    except ValidationError as error:
        raise AlignError(f"{where}: {_sentence(error.errors()[0])}") from None
    if settings.lora is not None and (settings.layers is not None or settings.shape is not None):
        raise AlignError(f"{where}: `lora` needs a base drafter (--base), not `layers` or `shape`.")
    return settings


def _sentence(error: Any) -> str:
    if error["type"] == "extra_forbidden":
        key = ".".join(map(str, error["loc"]))
        return f"there is no setting `{key}`; the settings are {', '.join(AlignSettings.model_fields)}."
    if error["type"] == "value_error":
        return f"{error['ctx']['error']}."
    # A union adds its members' names to the place.
    known = {*AlignSettings.model_fields, *LoraSettings.model_fields, *ShapeSettings.model_fields}
    name = ".".join(part for part in error["loc"] if part in known)
    return f"`{name}` cannot be {shown(error['input'])} ({error['msg'].lower()}); correct it."


def _read(path: Path) -> dict[str, Any]:
    try:
        fields = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise AlignError(f"{path} cannot be read ({error.strerror}); check the path.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        line = " ".join(str(error).split())[:160]
        raise AlignError(f"{path} is not YAML ({line}); correct it.") from None
    if fields is None:
        return {}
    if not isinstance(fields, dict):
        raise AlignError(f"{path} holds {type(fields).__name__}, not `key: value` lines; correct it.")
    return fields


def _put(fields: dict[str, Any], keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        inner = fields.get(key)
        fields[key] = dict(inner) if isinstance(inner, dict) else {}
        fields = fields[key]
    fields[keys[-1]] = value
