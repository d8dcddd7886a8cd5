"""The command line: what is refused, in one sentence, before anything starts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from sglang_hetero_spec import cli
from sglang_hetero_spec.bench import run as bench_run
from sglang_hetero_spec.commands.bench import as_command
from sglang_hetero_spec.demo.shipped import find_shipped
from tests.bench.fake import Fake

SMALL = ["--target-params", "0", "--device", "cpu"]


@pytest.fixture(autouse=True)
def no_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not refused fails here, and starts nothing."""
    monkeypatch.setattr(bench_run, "running", None)


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert cli.main(["bench", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and "Traceback" not in err
    return err.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--concurrency", "0"], "'0' is not a whole number above 0"),
        (["--concurrency", "4,x"], "'x' is not a whole number above 0"),
        (["--rate", "0"], "'0' is not a number of requests a second above 0"),
        (["--rate", "-1"], "'-1' is not a number of requests a second"),
        (["--rate", "inf"], "above 0"),
        (["--rate", "nan"], "above 0"),
        (["--repetitions", "0"], "above 0"),
        (["--temperature", "-0.5"], "is not a temperature"),
        (["--seed", "x"], "is not a whole number from 0 on"),
        (["--url", "ftp://x"], "is not the address of a server"),
        (["--url", "http://[1"], "is not the address of a server"),
        (["--target", "/nowhere"], "--pool is missing: give --target, --pool and --prompts"),
        (["--arms", "none,mystery", *SMALL], "there is no arm `mystery`; choose from `none`"),
        (["--num-prompts", "100000", *SMALL], "--num-prompts 100000 is more than demo has"),
        (["--max-new-tokens", "1020", *SMALL], "and the context leaves 3 beside the answer"),
        (["--prompt-tokens", "64,1000", *SMALL], "has 1000 tokens, and the context leaves"),
        (["--url", "hetero=http://127.0.0.1:9", *SMALL], "no server of SGLang answers there"),
        (["--standalone", "nobody", "--arms", "standalone-best", *SMALL], "names the drafter `nobody`"),
        (["--resume", "/nowhere"], "/nowhere has no metadata.json"),
        (["--resume", "/nowhere", "--seed", "3"], "give it alone, or the same command with --out"),
    ],
)
def test_bad_input(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert said in refused(arguments, capsys)
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"


def test_prompts_that_hold_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "p.jsonl"
    for data in (b"", b"\x00\xff" * 99):
        path.write_bytes(data)
        assert str(path) in refused(["--prompts", str(path), *SMALL], capsys)
    assert "cannot be read" in refused(["--prompts", str(tmp_path / "no"), *SMALL], capsys)


def test_a_pool_of_another_target(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shipped = find_shipped()
    target = tmp_path / "target"
    target.mkdir()
    for path in shipped.target.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    tokenizer = json.loads((target / "tokenizer.json").read_text())
    vocab = tokenizer["model"]["vocab"]
    (*_, (token, number)) = vocab.items()
    del vocab[token]
    vocab["something else"] = number
    (target / "tokenizer.json").write_text(json.dumps(tokenizer))
    inputs = ["--target", str(target), "--pool", str(shipped.pool), "--prompts", str(shipped.root / "heldout.jsonl")]
    assert "tokenizer" in refused([*inputs, *SMALL, "--num-prompts", "6"], capsys)


def test_a_folder_with_other_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    assert "has other files (`thesis.txt`) and no run" in refused(["--out", str(tmp_path), *SMALL], capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    (tmp_path / "metadata.json").write_text('{"format": "other"}')
    assert "is of format" in refused(["--resume", str(tmp_path)], capsys)


def test_urls_that_are_no_arm(start_fake: Callable[..., Fake], capsys: pytest.CaptureFixture[str]) -> None:
    strange, plain = start_fake("EAGLE3"), start_fake(None)
    assert "is no arm that is known by its algorithm; give NAME=" in refused(["--url", strange.url, *SMALL], capsys)
    twice = ["--url", plain.url, "--url", f"none={plain.url}"]
    assert "`none` has a server already" in refused([*twice, *SMALL], capsys)
    assert "no arm `ngram` is measured" in refused(
        ["--url", f"ngram={plain.url}", "--arms", "none,hetero", *SMALL], capsys
    )


def test_the_command_that_is_stored_is_read_back_alike() -> None:
    parser = cli.build_parser()
    command = ["bench", "--concurrency", "1,16", "--rate", "0.5,2.0", "--url", "none=http://a:1", "--url", "http://b:2",
               "--arms", "none,hetero", "--temperature", "0.5", "--target-params", "100M", "--out", "x"]  # fmt: skip
    stored = as_command(parser.parse_args(command))
    assert "--out" not in stored and as_command(parser.parse_args(stored)) == stored
    assert vars(parser.parse_args([*stored, "--out", "x"])) == vars(parser.parse_args(command))
    assert as_command(parser.parse_args(["bench"])) == ["bench"]


def test_help_says_what_the_whole_comparison_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "--help"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "--concurrency 1,4,16,64" in out and "Poisson" in out
