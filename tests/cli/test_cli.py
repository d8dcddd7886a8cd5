"""The command line as a user and a script meet it: exit codes, streams, one sentence for bad input."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_pool import FakePool, write_tokenizer

from sglang_hetero_spec import SGLANG_VERSION, __version__, cli
from sglang_hetero_spec.commands.route import read_prompts

MODULE = [sys.executable, "-m", "sglang_hetero_spec.cli"]
Run = Callable[..., Any]


def test_help_is_quick() -> None:
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([*MODULE, "--help"], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    assert min(seconds) < 0.3, "processor seconds: what else runs on this machine must not matter"


def test_help_lists_the_commands_of_this_version_only(hetero_spec: Run) -> None:
    ran = hetero_spec("--help")
    listed = re.findall(r"^    (\w[\w-]*)", ran.out, re.MULTILINE)
    offline = ["build", "partition", "regenerate", "align", "ngram-corpus", "profile", "assign", "fit-router", "report"]
    assert (ran.code, listed) == (0, ["demo", *offline, "inspect", "route", "bench", "doctor", "serve", "version"])


@pytest.mark.parametrize(
    "command",
    ["demo", "build", "partition", "regenerate", "align", "ngram-corpus", "profile", "assign", "fit-router", "report",
     "inspect", "route", "bench", "doctor", "version"],
)  # fmt: skip
def test_every_command_has_help_and_json(hetero_spec: Run, command: str) -> None:
    ran = hetero_spec(command, "--help")
    assert ran.code == 0 and "--json" in ran.out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["benchmark"], "invalid choice: 'benchmark'"),
        (["build"], "the following arguments are required: --out"),
        (["inspect"], "the following arguments are required: POOL"),
        (["inspect", "a", "b"], "unrecognized arguments: b"),
        (["demo", "--tokens", "0"], "argument --tokens: '0' is not a whole number above 0"),
        (["demo", "--concurrency", "many"], "argument --concurrency: 'many' is not a whole number"),
        (["demo", "--target-params", "big"], "argument --target-params: 'big' is not a number of parameters"),
        (["demo", "--device", "tpu"], "argument --device: invalid choice: 'tpu'"),
        (["--frobnicate"], "the following arguments are required: COMMAND"),
        (["route", "pool"], "there is no prompt to route; give one, or --file F."),
        (["route", "pool", "--file", "/nowhere"], "--file /nowhere cannot be read (No such file or directory)"),
        (["inspect", "/nowhere"], "/nowhere does not exist; give the folder that holds pool.json."),
        (["inspect", "/tmp", "--target", "/nowhere"], "--target /nowhere is not a folder;"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(hetero_spec: Run, arguments: list[str], says: str) -> None:
    ran = hetero_spec(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("hetero-spec: ") and ran.err.count("\n") == 1
    assert says in ran.err


def test_without_a_command_the_help_is_shown(hetero_spec: Run) -> None:
    ran = hetero_spec()
    assert ran.code == 2 and "commands:" in ran.out


def test_version(hetero_spec: Run) -> None:
    assert hetero_spec("--version").out == f"hetero-spec {__version__}\n"
    assert f"hetero-spec {__version__} (for SGLang {SGLANG_VERSION}" in hetero_spec("version").out
    ran = hetero_spec("version", "--json")
    assert json.loads(ran.out)["sglang_supported"] == SGLANG_VERSION and ran.err == ""


def test_target_params_are_read_with_units() -> None:
    parse = cli.build_parser().parse_args
    sizes = [parse(["demo", "--target-params", text]).target_params for text in ("300M", "0.3b", "300000000")]
    assert sizes == [300_000_000] * 3


def test_inspect_shows_every_drafter_and_task(hetero_spec: Run, pool: FakePool) -> None:
    ran = hetero_spec("inspect", pool.root)
    assert ran.code == 0
    for words in ("code", "general", "off", "standalone", "none", "(fallback)", "Every check passed."):
        assert words in ran.out
    assert "Tokenizers were not compared" in ran.err
    assert hetero_spec("inspect", pool.root, "--target", pool.target).err == ""


def test_inspect_json_is_one_object_and_nothing_else(hetero_spec: Run, pool: FakePool) -> None:
    ran = hetero_spec("inspect", pool.root, "--json")
    assert (ran.code, ran.err, ran.out.count("\n")) == (0, "", 1)
    found = json.loads(ran.out)
    assert (found["fallback_drafter"], found["router"]) == ("general", None)
    code = found["drafters"][0]
    assert (code["num_params"], code["weight_bytes"], code["num_draft_tokens"]) == (4, 16, 8)
    assert len(code["weights_sha256"]) == len(code["tokenizer_sha256"]) == 64
    assert found["drafters"][2]["path"] is None
    assert found["tasks"][1] == {"id": "chat", "name": "chat", "drafter": "off", "second_drafter": None}


def test_hashes_that_inspect_prints_are_those_that_are_checked(hetero_spec: Run, pool: FakePool) -> None:
    code = json.loads(hetero_spec("inspect", pool.root, "--json").out)["drafters"][0]
    pool.drafters[0].update({key: code[key] for key in ("weights_sha256", "tokenizer_sha256")})
    pool.write()
    assert hetero_spec("inspect", pool.root).code == 0


def test_inspect_refuses_what_the_server_would_refuse(hetero_spec: Run, pool: FakePool) -> None:
    write_tokenizer(pool.code, [f"x{index}" for index in range(20)])
    assert hetero_spec("inspect", pool.root).code == 0
    ran = hetero_spec("inspect", pool.root, "--target", pool.target, "--json")
    assert (ran.code, ran.out) == (2, "")
    assert "20 of 21 token ids do not mean" in ran.err


def test_names_with_markup_are_shown_as_they_are(hetero_spec: Run, pool: FakePool, tmp_path: Path) -> None:
    moved = pool.root.rename(tmp_path / "[red]pool")
    assert "[red]pool" in hetero_spec("inspect", moved).out


def test_an_unexpected_failure_is_one_line(hetero_spec: Run, pool: FakePool, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr("sglang_hetero_spec.commands.checked.load_pool", broken)
    monkeypatch.delenv(cli.DEBUG_VARIABLE, raising=False)
    ran = hetero_spec("inspect", pool.root)
    assert ran.code == 1 and ran.err.count("\n") == 1
    assert ran.err.startswith("hetero-spec: failed with RuntimeError: first line (set HETERO_SPEC_DEBUG=1")
    monkeypatch.setenv(cli.DEBUG_VARIABLE, "1")
    with pytest.raises(RuntimeError):
        hetero_spec("inspect", pool.root)


def test_ctrl_c_is_one_line_and_130(tmp_path: Path) -> None:
    fifo = tmp_path / "prompts"
    os.mkfifo(fifo)
    command = [*MODULE, "route", "pool", "--file", str(fifo)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        writer = os.open(fifo, os.O_WRONLY)  # returns once the child has it open: it reads from now on
        try:
            child.send_signal(signal.SIGINT)
            _, err = child.communicate(timeout=20)
        finally:
            child.kill()
            os.close(writer)
    assert (child.returncode, err) == (130, "hetero-spec: interrupted.\n")


def test_a_broken_pipe_is_silent(pool: FakePool) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        command = [*MODULE, "inspect", str(pool.root), "--json"]
        child = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, timeout=20, check=False)
    finally:
        os.close(writer)
    assert (child.returncode, child.stderr) == (141, b"")


def test_prompts_of_a_text_file(tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_bytes("first\r\n\n  \nform\x0cfeed\u2028separator\n".encode())
    assert list(read_prompts(str(file))) == ["first", "form\x0cfeed\u2028separator"]


def test_prompts_of_a_jsonl_file(tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": "two\\nlines", "task": "x"}\n\n{"prompt": ""}\n')
    assert list(read_prompts(str(file))) == ["two\nlines", ""]


@pytest.mark.parametrize("line", ["{", "[]", '"text"', '{"text": "a"}', '{"prompt": 3}', "[" * 100_000])
def test_bad_line_of_a_jsonl_file(hetero_spec: Run, tmp_path: Path, line: str) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": "good"}\n' + line + "\n")
    ran = hetero_spec("route", "pool", "--file", file)
    assert ran.code == 2 and "line 2, is not an object with a string" in ran.err


def test_prompts_that_are_not_utf8(hetero_spec: Run, tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_bytes(b"caf\xe9\n")
    ran = hetero_spec("route", "pool", "--file", file)
    assert ran.code == 2 and "is not UTF-8 (byte 3)" in ran.err
