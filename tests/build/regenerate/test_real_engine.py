"""The demo's target in SGLang's offline engine, killed in the middle: what is resumed equals what was never killed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from sglang_hetero_spec.build.prompts import Message, Prompt, chat_prompt, plain_prompt, write_prompts
from sglang_hetero_spec.build.regenerate import read_answers
from sglang_hetero_spec.build.regenerate.backend import Reply, Request
from sglang_hetero_spec.build.regenerate.engine_backend import EngineBackend, EngineSettings
from sglang_hetero_spec.build.regenerate.settings import Settings
from tests.build.regenerate.commandline import finish, lines_in, start, wait_for
from tests.build.regenerate.conftest import TARGET

pytestmark = pytest.mark.slow

FLAGS = ("--mem-fraction-static", "0.8", "--max-total-tokens", "4000", "--dtype", "float32")
NEW_TOKENS = 48


def demo_prompts() -> tuple[Prompt, ...]:
    """Eleven of the demo's held-out prompts and one as a chat, then one that is too long."""
    with (TARGET.parent / "heldout.jsonl").open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file][::7][:12]
    plain = [plain_prompt(row["prompt"], task=row["task"]) for row in rows[:11]]
    chat = chat_prompt([Message("user", rows[11]["prompt"].rstrip("\n"))], task=rows[11]["task"])
    return (*plain, chat, plain_prompt("far too long " * 1000))


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineBackend]:
    log = tmp_path_factory.mktemp("engine") / "engine.log"
    settings = EngineSettings(str(TARGET), FLAGS, is_sampled=True, concurrency=3, log=log)
    with EngineBackend(settings) as backend:
        yield backend
    assert not log.exists()


def sampled(engine: EngineBackend, prompts: list[tuple[int, ...]], settings: Settings) -> dict[int, tuple[int, ...]]:
    requests = [
        Request(number, ids, settings.params(str(ids), NEW_TOKENS, by_processor=engine.is_seeded_by_processor))
        for number, ids in enumerate(prompts)
    ]
    replies = list(engine.answers(requests))
    assert all(isinstance(reply, Reply) for reply in replies)
    return {reply.number: reply.output_ids for reply in replies}


def test_sampling_is_the_seeds_alone(engine: EngineBackend, tokenizer: Any) -> None:
    assert engine.limits.context == 1024 and engine.limits.prompt == 1018
    ids = [tuple(tokenizer(prompt.text).input_ids) for prompt in demo_prompts()[:6]]
    warm = Settings("t", temperature=1.0, max_new_tokens=NEW_TOKENS, seed=1)
    first = sampled(engine, ids, warm)
    backwards = sampled(engine, ids[::-1], warm)
    assert first == {5 - number: tokens for number, tokens in backwards.items()}
    other = sampled(engine, ids, Settings("t", temperature=1.0, max_new_tokens=NEW_TOKENS, seed=2))
    assert other != first
    greedy = sampled(engine, ids, Settings("t", temperature=0.0, max_new_tokens=NEW_TOKENS, seed=0))
    cold = sampled(engine, ids, Settings("t", temperature=1e-4, max_new_tokens=NEW_TOKENS, seed=3))
    assert greedy == cold != first


def test_killed_and_resumed_equals_never_killed(tmp_path: Path, engine: EngineBackend) -> None:
    engine.__exit__(None, None, None)  # one engine at a time
    prompts = demo_prompts()
    write_prompts(tmp_path / "prompts.jsonl", prompts)
    whole, killed = tmp_path / "whole" / "answers.jsonl", tmp_path / "killed" / "answers.jsonl"
    common = ("--target", TARGET, "--prompts", tmp_path / "prompts.jsonl", "--max-new-tokens", str(NEW_TOKENS))
    more = ("--batch", "2", "--json", "--", *FLAGS)

    code, said, errors = finish(start(*common, "--out", whole, *more))
    assert code == 0, errors
    found = json.loads(said)
    assert (found["answered"], found["rejected"], found["kept"]) == (12, 1, 0)
    assert [answer.id for answer in read_answers(whole)] == [prompt.id for prompt in prompts[:12]]

    process = start(*common, "--out", killed, *more)
    part = killed.with_name("answers.jsonl.part")
    wait_for(lambda: lines_in(part) >= 3, process)
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.communicate()
    assert len(children) > 1
    _, alive = psutil.wait_procs(children, timeout=30)
    assert alive == []
    kept = lines_in(part)
    assert 3 <= kept < 12
    shutil.copy(part, tmp_path / "before")

    code, said, errors = finish(start(*common, "--out", killed, *more))
    assert code == 0, errors
    assert json.loads(said)["kept"] == kept
    assert killed.read_bytes() == whole.read_bytes()
    old = {line for line in (tmp_path / "before").read_bytes().splitlines()[:kept]}
    assert old <= set(killed.read_bytes().splitlines())
