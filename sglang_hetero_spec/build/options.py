"""What a recipe asks of a stage, in the stage's own words."""

from __future__ import annotations

from sglang_hetero_spec.build.profile.measure import ProfileOptions
from sglang_hetero_spec.build.profile.records import Settings
from sglang_hetero_spec.build.recipe import Recipe


def profile_options(recipe: Recipe) -> ProfileOptions:
    chosen = recipe.profile
    return ProfileOptions(
        concurrency=tuple(chosen.concurrency),
        num_prompts=chosen.num_prompts,
        max_new_tokens=chosen.max_new_tokens,
        shapes=tuple(Settings(steps, 1, steps + 1) for steps in chosen.num_steps),
        passes=chosen.passes,
        flags=tuple(recipe.flags),
    )
