"""The other two ways into the engine: SGLang's own launch command, and sglang.Engine in a user's program."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sglang_hetero_spec.cpu.engine import SHIM_DIR
from tests.server.conftest import ARGS, GREEDY, GREEDY_PROMPTS
from tests.support.routed_pool import DRAFTERS, TASKS, RoutedPool, prompt_of
from tests.support.servers import LAUNCH, running_server

PARAMS = {"temperature": 0, "max_new_tokens": 12, "ignore_eos": True}

ENGINE_PROGRAM = """
import json, sys
from sglang_hetero_spec import cpu

if __name__ == "__main__":
    cpu.enable()
    import sglang

    args = json.loads(sys.argv[1])
    engine = sglang.Engine(**args["engine"])
    found = {"answers": engine.generate(args["prompts"], args["params"])}
    found["ids"] = engine.generate(input_ids=[[5, 6, 7], [9, 9]], sampling_params=args["params"][0])
    found["stream"] = list(engine.generate(args["prompts"][0], args["params"][0], stream=True))
    found["errors"] = []
    for override in args["wrong"]:
        try:
            engine.generate("hello", {"max_new_tokens": 2, "custom_params": override})
        except ValueError as error:
            found["errors"].append(str(error))
    found["after"] = engine.generate("hello", args["params"][0])
    print("FOUND" + json.dumps(found))
    engine.shutdown()
"""


@pytest.mark.slow
def test_launch_server(routed: RoutedPool, logs: Path, plain: tuple) -> None:
    env = {"PYTHONPATH": SHIM_DIR, "SGLANG_USE_CPU_ENGINE": "1", "TORCHDYNAMO_DISABLE": "1"}
    args = (*ARGS, *routed.args, "--device", "cpu")
    with running_server(routed.target, logs / "launch.log", *args, env=env, command=LAUNCH) as server:
        answer = server.generate(GREEDY_PROMPTS[0], **GREEDY)
        assert answer["text"] == plain[1][0] and answer["meta_info"]["hetero"]["drafter"] == TASKS["sums"]
        wrong = {"text": "a", "sampling_params": {"custom_params": {"hetero": {"drafter": "nobody"}}}}
        response = server.post("/generate", wrong)
        assert response.status_code == 400 and "`small`" in response.text
        assert server.is_alive()


@pytest.fixture(scope="module")
def found(routed: RoutedPool, tmp_path_factory: pytest.TempPathFactory) -> dict:
    program = tmp_path_factory.mktemp("engine") / "program.py"
    program.write_text(ENGINE_PROGRAM)
    args = {
        "engine": {
            "model_path": str(routed.target), "device": "cpu", "dtype": "float32", "max_total_tokens": 8000,
            "mem_fraction_static": 0.8, "log_level": "error", "watchdog_timeout": 600,
            "speculative_algorithm": "HETERO", "speculative_draft_model_path": str(routed.pool),
        },
        "prompts": [prompt_of(task) for task in TASKS] * 2,
        "params": [PARAMS] * 4 + [{**PARAMS, "custom_params": {"hetero": {"drafter": name}}} for name in DRAFTERS],
        "wrong": [{"hetero": {"drafter": "nobody"}}, {"hetero": 3}, ["hetero"]],
    }  # fmt: skip
    ran = subprocess.run(
        [sys.executable, str(program), json.dumps(args)],
        capture_output=True,
        text=True,
        timeout=500,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    line = next((line for line in ran.stdout.splitlines() if line.startswith("FOUND")), None)
    assert line is not None, ran.stderr[-4000:]
    return json.loads(line.removeprefix("FOUND"))


def test_engine_routes_a_batch(found: dict) -> None:
    tags = [answer["meta_info"]["hetero"] for answer in found["answers"]]
    assert [(tag["task"], tag["drafter"], tag["source"]) for tag in tags[:4]] == [
        (task, drafter, "router") for task, drafter in TASKS.items()
    ]
    assert [(tag["drafter"], tag["source"]) for tag in tags[4:]] == [(name, "request") for name in DRAFTERS]
    texts = [answer["text"] for answer in found["answers"]]
    assert texts[:4] == texts[4:]
    assert all(answer["meta_info"]["hetero"]["source"] == "fallback" for answer in found["ids"])


def test_engine_streams_with_the_route(found: dict) -> None:
    last = found["stream"][-1]
    assert last["meta_info"]["hetero"]["drafter"] == TASKS["sums"]
    assert last["text"] == found["answers"][0]["text"]


def test_engine_raises_value_errors_and_goes_on(found: dict) -> None:
    assert len(found["errors"]) == 3 and all("`small`" in message for message in found["errors"])
    assert found["after"]["meta_info"]["completion_tokens"] == 12
