"""`hetero-spec serve`: the pool is checked first, then this process becomes SGLang's server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_pool import FakePool, write_tokenizer

from sglang_hetero_spec.commands import serve

Run = Callable[..., Any]
HETERO = ["--speculative-algorithm", "HETERO"]


@pytest.mark.parametrize("algorithm", [HETERO, ["--speculative-algorithm=HETERO"], ["--speculative-algo", "hetero"]])
def test_a_bad_pool_is_refused(hetero_spec: Run, pool: FakePool, algorithm: list[str]) -> None:
    pool.drafters[0]["topk"] = 1000
    pool.write()
    ran = hetero_spec("serve", "--model-path", "T", *algorithm, "--speculative-draft-model-path", pool.root)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(f"hetero-spec: {pool.manifest_path}: `drafters[0].topk` is 1000;")
    assert ran.err.count("\n") == 1


def test_nothing_heavy_is_imported_before_the_pool_is_checked(tmp_path: Path) -> None:
    code = (
        "import sys; from sglang_hetero_spec.cli import main;"
        f"code = main(['serve', *{HETERO!r}, '--speculative-draft-model-path', {str(tmp_path)!r}]);"
        "print(code, [name for name in ('torch', 'sglang', 'transformers') if name in sys.modules])"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert child.stdout == "2 []\n"
    assert child.stderr == f"hetero-spec: {tmp_path}/pool.json is missing; check the path, or make the file again.\n"


def test_a_pool_is_asked_for(hetero_spec: Run) -> None:
    ran = hetero_spec("serve", "--model-path", "T", *HETERO)
    assert ran.code == 2 and "needs a pool; add --speculative-draft-model-path POOL" in ran.err


def test_tokenizers_are_compared_with_the_target_that_is_served(hetero_spec: Run, pool: FakePool) -> None:
    write_tokenizer(pool.code, [f"x{index}" for index in range(20)])
    ran = hetero_spec("serve", "--model", pool.target, *HETERO, "--speculative-draft-model", pool.root)
    assert ran.code == 2 and f"the target {pool.target} (first 0: 'x0', there 'w0')" in ran.err


def test_options_of_a_config_file_count_and_the_command_line_wins(tmp_path: Path) -> None:
    config = tmp_path / "server.yaml"
    config.write_text("model-path: T\nspeculative_algorithm: HETERO\ndevice: cuda\n")
    options = serve.parse(["--config", str(config), "--device", "cpu"])
    assert (options.model_path, options.speculative_algorithm, options.device) == ("T", "HETERO", "cpu")


@pytest.mark.parametrize("text", ["[]", "a: [", "\x00", None])
def test_what_is_wrong_with_a_config_file_is_left_to_sglang(tmp_path: Path, text: str | None) -> None:
    config = tmp_path / "server.yaml"
    if text is not None:
        config.write_text(text)
    assert serve.parse(["--config", str(config), "--device", "cpu"]).device == "cpu"


@pytest.mark.parametrize("arguments", [["--device"], ["--model-path"], ["--device", "--port", "1"]])
def test_what_is_wrong_with_the_options_is_left_to_sglang(arguments: list[str]) -> None:
    assert serve.parse(arguments).device is None


FAKE_SERVER = """
import json, os, sys
names = ("PYTHONPATH", "SGLANG_USE_CPU_ENGINE")
print(json.dumps([sys.argv[1:], os.getpid(), {name: os.environ.get(name) for name in names}]))
sys.exit(7)
"""


def start(tmp_path: Path, arguments: list[str], cuda: bool) -> tuple[subprocess.CompletedProcess[str], Any]:
    """Starts `hetero-spec serve` where sglang and torch are a few lines that tell how they were started."""
    for name, text in (
        ("torch/__init__.py", ""),
        ("torch/cuda.py", f"def is_available(): return {cuda}"),
        ("sglang/__init__.py", ""),
        ("sglang/launch_server.py", FAKE_SERVER),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "torch/__init__.py").write_text("from torch import cuda")
    child = subprocess.run(
        [sys.executable, "-m", "sglang_hetero_spec.cli", "serve", *arguments],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    return child, json.loads(child.stdout.splitlines()[-1])


def test_without_cuda_the_cpu_engine_is_set_up(tmp_path: Path) -> None:
    child, (arguments, _, environment) = start(tmp_path, ["--model-path", "T", "--port", "9"], cuda=False)
    assert arguments == ["--model-path", "T", "--port", "9", "--device", "cpu"]
    assert environment["SGLANG_USE_CPU_ENGINE"] == "1"
    assert environment["PYTHONPATH"].endswith(os.pathsep + str(tmp_path))
    assert child.returncode == 7, "SGLang's exit code is ours"
    assert "CPU engine" in child.stderr and "Traceback" not in child.stderr


def test_a_device_that_the_user_chose_stays(tmp_path: Path) -> None:
    _, (arguments, _, environment) = start(tmp_path, ["--device", "cpu"], cuda=False)
    assert (arguments, environment["SGLANG_USE_CPU_ENGINE"]) == (["--device", "cpu"], "1")
    _, (arguments, _, environment) = start(tmp_path, ["--device=cuda"], cuda=False)
    assert (arguments, environment["SGLANG_USE_CPU_ENGINE"]) == (["--device=cuda"], None)


def test_with_cuda_nothing_is_added(tmp_path: Path) -> None:
    child, (arguments, _, environment) = start(tmp_path, ["--model-path", "T"], cuda=True)
    assert (arguments, environment["SGLANG_USE_CPU_ENGINE"]) == (["--model-path", "T"], None)
    assert child.stderr == ""


def test_help_shows_ours_and_then_sglangs(tmp_path: Path) -> None:
    child, (arguments, _, _) = start(tmp_path, ["--help"], cuda=True)
    assert child.stdout.startswith("usage: hetero-spec serve SGLANG-OPTIONS")
    assert arguments == ["--help"]
