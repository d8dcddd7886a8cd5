"""How much of everything. `FULL` makes what is shipped; `QUICK` has the same form in a few minutes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from sglang_hetero_spec.demo.train.model import Shape

VOCAB = 4096
CONTEXT = 1024
TARGET = Shape(hidden=256, layers=4, heads=4, kv_heads=2, intermediate=768, vocab=VOCAB, context=CONTEXT)


@dataclass(frozen=True)
class Settings:
    """Token counts are unpadded. recipe: what is changed in recipe.yaml, which says how the pool is made."""

    target: Shape = TARGET
    examples_per_task: int = 12_000
    prompts_per_task: int = 2_000
    heldout_per_task: int = 48
    target_tokens: int = 12_000_000
    target_batch_tokens: int = 2048
    max_row_tokens: int = 384
    target_rate: float = 3e-3
    seed: int = 0
    recipe: Mapping[str, object] = field(default_factory=dict)

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


FULL = Settings()
QUICK = Settings(
    examples_per_task=2_000,
    prompts_per_task=150,
    target_tokens=800_000,
    recipe={"base_tokens": 400_000, "align.tokens": 150_000, "profile.num_prompts": 4, "profile.passes": 1},
)
