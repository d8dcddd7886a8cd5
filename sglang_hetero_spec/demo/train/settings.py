"""How much of everything. `FULL` makes what is shipped; `QUICK` has the same form in a few minutes."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from sglang_hetero_spec.demo.train.model import Shape

VOCAB = 4096
CONTEXT = 1024
TARGET = Shape(hidden=256, layers=4, heads=4, kv_heads=2, intermediate=768, vocab=VOCAB, context=CONTEXT)
# So small that it can learn one task well and not six: this is what a pool of drafters is for.
DRAFTER = Shape(hidden=20, layers=1, heads=2, kv_heads=1, intermediate=80, vocab=VOCAB, context=CONTEXT)


@dataclass(frozen=True)
class Settings:
    """Token counts are unpadded.

    All drafters start from one base that saw `base_tokens` of all tasks. A task's drafter goes on with `drafter_tokens`
    of its task, the general one with as many of every task: base and all task drafters together saw as many as it did.
    """

    target: Shape = TARGET
    drafter: Shape = DRAFTER
    examples_per_task: int = 12_000
    answers_per_task: int = 3_000
    heldout_per_task: int = 48
    router_per_task: int = 2_000
    target_tokens: int = 12_000_000
    base_tokens: int = 1_000_000
    drafter_tokens: int = 4_000_000
    target_batch_tokens: int = 2048
    drafter_batch_tokens: int = 3072
    max_new_tokens: int = 192
    max_row_tokens: int = 384
    target_rate: float = 3e-3
    drafter_rate: float = 6e-3
    seed: int = 0

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


FULL = Settings()
QUICK = Settings(
    examples_per_task=2_000,
    answers_per_task=400,
    target_tokens=800_000,
    base_tokens=800_000,
    drafter_tokens=150_000,
    router_per_task=500,
)
