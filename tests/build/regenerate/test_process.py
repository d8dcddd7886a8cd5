"""The command as a process: killed, interrupted, out of space, against a slow server."""

from __future__ import annotations

import json
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sglang_hetero_spec import cli
from sglang_hetero_spec.build.prompts import plain_prompt, write_prompts
from sglang_hetero_spec.build.regenerate import Options, read_answers, regenerate
from sglang_hetero_spec.commands import regenerate as command
from tests.build.regenerate.commandline import finish, lines_in, start, wait_for
from tests.build.regenerate.conftest import TARGET
from tests.build.regenerate.fakes import FakeServer, serving

NUMBER = 60


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with serving(FakeServer(seconds=0.1)) as fake:
        yield fake


@pytest.fixture
def many(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.jsonl"
    write_prompts(path, [plain_prompt(f"Number {i}", task="t") for i in range(NUMBER)])
    return path


def arguments(server: FakeServer, prompts: Path, out: Path) -> list[str]:
    files = ["--target", str(TARGET), "--prompts", str(prompts), "--out", str(out)]
    return [*files, "--url", server.url, "--batch", "3", "--json"]


def run_here(server: FakeServer, prompts: Path, out: Path) -> int:
    """The same in this process, for what is not to be killed; how many answers were kept."""
    return regenerate(TARGET, prompts, out, Options(url=server.url, batch=3)).kept


@pytest.mark.slow
def test_killed_again_and_again_equals_never_killed(server: FakeServer, many: Path, tmp_path: Path) -> None:
    whole, out = tmp_path / "whole.jsonl", tmp_path / "killed" / "answers.jsonl"
    run_here(server, many, whole)
    part, draw, kills = out.with_name("answers.jsonl.part"), random.Random(0), 0
    on_disk: set[bytes] = set()
    while kills < 2:
        process = start(*arguments(server, many, out))
        before = lines_in(part)
        wait_for(lambda before=before: lines_in(part) > before, process)
        time.sleep(draw.uniform(0, 0.15))
        process.kill()
        process.communicate()
        kills += 1
        found = set(part.read_bytes().splitlines(keepends=True))
        assert on_disk <= found, "an answer was lost"
        on_disk = {line for line in found if line.endswith(b"\n")}
    done = {tuple(json.loads(line)["prompt_ids"]) for line in on_disk}
    time.sleep(0.2)
    server.asked.clear()
    assert run_here(server, many, out) == len(done) < NUMBER
    assert not done & set(server.asked) and len(server.asked) == NUMBER - len(done)
    assert out.read_bytes() == whole.read_bytes()


@pytest.mark.slow
def test_interrupted(server: FakeServer, many: Path, tmp_path: Path) -> None:
    out = tmp_path / "answers.jsonl"
    process = start(*arguments(server, many, out))
    part = out.with_name("answers.jsonl.part")
    wait_for(lambda: lines_in(part) > 4, process)
    process.send_signal(signal.SIGINT)
    code, said, errors = finish(process, timeout=20)
    assert (code, said) == (130, "") and "interrupted" in errors and "Traceback" not in errors
    assert f"{lines_in(part)} answers are kept; the same command goes on from there" in errors
    assert not out.exists() and not list(tmp_path.glob(".*lock"))


@pytest.mark.slow
def test_out_of_space(server: FakeServer, many: Path, tmp_path: Path) -> None:
    """A limit on the size of files: the kernel refuses the write just as on a full disk."""
    out = tmp_path / "answers.jsonl"
    limit = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))\n"
    code, said, errors = finish(start(*arguments(server, many, out), before=limit))
    assert (code, said) == (1, "") and "Traceback" not in errors
    kept = lines_in(out.with_name("answers.jsonl.part"))
    last = errors.strip().splitlines()[-1]
    assert last.startswith("hetero-spec: ") and "cannot be written (File too large); free some space: " in last
    assert 0 < kept < NUMBER and f"{kept} answers are kept in " in last
    assert run_here(server, many, out) == kept
    assert len(read_answers(out)) == NUMBER


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"--target": "nowhere"}, "--target nowhere has no config.json"),
        ({"--prompts": "missing.jsonl"}, "missing.jsonl cannot be read"),
        ({"--temperature": "-1"}, "not a temperature"),
        ({"--seed": "1.5"}, "not a whole number"),
        ({"--batch": "0"}, "not a whole number above 0"),
        ({"--": "--tp-size"}, "do not reach a running server"),
        ({"--out": "."}, "is a folder"),
    ],
)
def test_bad_input(
    server: FakeServer,
    many: Path,
    tmp_path: Path,
    change: dict[str, str],
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(cli, "COMMANDS", (command,))
    given = arguments(server, many, tmp_path / "answers.jsonl")
    code = cli.main(["regenerate", *given, *(part for pair in change.items() for part in pair)])
    said, errors = capsys.readouterr()
    assert (code, said) == (2, "") and sentence in errors
    assert len(errors.strip().splitlines()) == 1
    assert server.asked == []


def test_what_is_printed(
    server: FakeServer,
    many: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(cli, "COMMANDS", (command,))
    server.fault = lambda ids, before: 400 if ids == server.asked[0] else None
    out = tmp_path / "answers.jsonl"
    given = [*arguments(server, many, out)[:-1], "--max-new-tokens", "4"]
    assert cli.main(["regenerate", *given, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["prompts"] == NUMBER and said["answered"] + said["rejected"] == NUMBER and said["rejected"] == 1
    assert said["out"] == str(out) and said["rejects"] == str(tmp_path / "answers.rejects.jsonl")
    assert sum(said["finish_reasons"].values()) == said["answered"]
    assert cli.main(["regenerate", *given]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"59 answers with {said['completion_tokens']} tokens in {out} (59 of them from earlier")
    assert f"1 of 60 prompts have none; why is in {tmp_path / 'answers.rejects.jsonl'}" in printed
