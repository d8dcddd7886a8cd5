"""Random weights: outputs without any pattern, which only the target itself can foresee."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.engine.cases import cases_of, mixed_prompts
from tests.engine.compare import first_difference
from tests.engine.conftest import assert_nothing_left
from tests.engine.figures import accept_length, assert_accepts_everything, served_by
from tests.engine.fleet import EXACT, ROOMY, STRICT, ask
from tests.engine.pools import EVERYONE, SELF, SELF_STEPS, tiny_models, write_pool
from tests.support.servers import running_server


@pytest.mark.slow
def test_random_models(tmp_path: Path) -> None:
    """Against `none` of the same server: token for token, and the target accepts all that it drafts for itself."""
    models = tiny_models(tmp_path / "models")
    flags = ("--speculative-algorithm", "HETERO", "--speculative-draft-model-path", str(write_pool(tmp_path, models)))
    prompts = mixed_prompts(models.heldout, 64)
    with running_server(models.target, tmp_path / "log", *EXACT, *ROOMY, *flags, env=STRICT) as server:
        plain = ask(server, cases_of(prompts, ["none"]))
        cases = cases_of(prompts, (*EVERYONE, *SELF))
        answers = ask(server, cases)
        assert_nothing_left(server)
    for case, want, have in zip(cases, plain, answers, strict=True):
        place = first_difference(want["output_ids"], have["output_ids"])
        assert place == len(want["output_ids"]), f"{case.drafter}: token {place} of {case.prompt!r}"
    for drafter in SELF:
        assert_accepts_everything(served_by(drafter, cases, answers), SELF_STEPS[drafter])
    print({drafter: round(accept_length(served_by(drafter, cases, answers)), 3) for drafter in (*EVERYONE, *SELF)})
