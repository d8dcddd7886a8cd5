"""The target answers the prompts: what drafters learn from and what profiles are measured on."""

from sglang_hetero_spec.build.regenerate.answers import ANSWERS_NAME, Answer, read_answers
from sglang_hetero_spec.build.regenerate.errors import RegenerateError, RegenerateStopped
from sglang_hetero_spec.build.regenerate.run import Options, Regenerated, regenerate

__all__ = [
    "ANSWERS_NAME",
    "Answer",
    "Options",
    "RegenerateError",
    "RegenerateStopped",
    "Regenerated",
    "read_answers",
    "regenerate",
]
