"""One sorted checkpoint in the pools of the demo's two targets: greedy output is each target's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from sglang_hetero_spec.demo.shipped import find_shipped
from tests.engine.figures import accept_length
from tests.support.servers import running_server

TOKENS = {"max_new_tokens": 48, "temperature": 0}


@pytest.mark.slow
def test_one_checkpoint_serves_both(tmp_path: Path) -> None:
    shipped = find_shipped()
    prompts = [prompt.text for prompt in shipped.prompts()[::24]]
    said = []
    for target, pool in ((shipped.target, shipped.pool), (shipped.small_target, shipped.small_pool)):
        log = tmp_path / f"{len(said)}.log"
        args = ("--dtype", "float32", "--device", "cpu", "--max-total-tokens", "8192")
        flags = ("--speculative-algorithm", "HETERO", "--speculative-draft-model-path", str(pool))
        with running_server(target, log, *args) as plain:
            expected = plain.generate_all(prompts, concurrency=4, sampling_params=TOKENS)
        with running_server(target, log, *args, *flags) as server:
            params = {**TOKENS, "custom_params": {"hetero": {"drafter": "both"}}}
            answers = server.generate_all(prompts, concurrency=4, sampling_params=params)
        assert [a["output_ids"] for a in answers] == [e["output_ids"] for e in expected]
        assert all(answer["meta_info"]["hetero"]["drafter"] == "both" for answer in answers)
        print(f"{target.parent.name}/{target.name}: accept length {accept_length(answers):.2f}")
        assert accept_length(answers) > 2
        said.append([answer["output_ids"] for answer in answers])
    assert said[0] != said[1]
