"""`regenerate` by URL, against a server that fails in the ways that real ones do."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests

from sglang_hetero_spec.build.locks import LockedError
from sglang_hetero_spec.build.prompts import Message, Prompt, chat_prompt, plain_prompt
from sglang_hetero_spec.build.regenerate import RegenerateError, RegenerateStopped, read_answers
from sglang_hetero_spec.build.regenerate.rejects import rejects_path
from tests.build.regenerate.fakes import FakeServer, answer_to, serving

Ask = Callable[..., Any]


def ids_of(tokenizer: Any, prompt: Prompt) -> tuple[int, ...]:
    if prompt.messages is None:
        return tuple(tokenizer(prompt.text).input_ids)
    messages = [{"role": m.role, "content": m.content} for m in prompt.messages]
    found = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)
    return tuple(found["input_ids"])


def test_every_prompt_is_answered_in_order_with_what_the_model_read(
    ask: Ask, prompts: tuple[Prompt, ...], prompts_file: Path, out: Path, tokenizer: Any
) -> None:
    with serving() as server:
        found = ask(prompts_file, url=server.url, batch=4)
    answers = read_answers(out)
    assert [(a.id, a.task) for a in answers] == [(p.id, p.task) for p in prompts]
    assert [a.prompt_ids for a in answers] == [ids_of(tokenizer, p) for p in prompts]
    for answer in answers:
        told = answer_to(answer.prompt_ids, {"max_new_tokens": 512})
        assert (answer.text, list(answer.output_ids)) == (told["text"], told["output_ids"])
    assert (found.prompts, found.answered, found.kept, found.rejected) == (20, 20, 0, 0)
    assert found.completion_tokens == sum(len(a.output_ids) for a in answers)
    assert sorted(server.asked) == sorted(a.prompt_ids for a in answers)
    assert 2 <= server.most_at_once <= 4
    assert [path.name for path in sorted(out.parent.iterdir())] == [
        "answers.jsonl", "answers.settings.json", "prompts.jsonl",
    ]  # fmt: skip


def test_a_second_run_asks_nothing(ask: Ask, prompts: tuple[Prompt, ...], out: Path) -> None:
    with serving() as server:
        ask(prompts, url=server.url)
        before, stamp = len(server.asked), out.stat().st_mtime_ns
        found = ask(prompts, url=server.url)
        assert (len(server.asked), out.stat().st_mtime_ns) == (before, stamp)
    assert found.kept == found.answered == 20


def test_new_prompts_and_tasks_need_only_the_new_answers(ask: Ask, prompts: tuple[Prompt, ...], out: Path) -> None:
    with serving() as server:
        ask(prompts[:10], url=server.url)
        server.asked.clear()
        moved = [plain_prompt(p.text, task="other") if p.messages is None else p for p in reversed(prompts)]
        found = ask(moved, url=server.url)
        assert len(server.asked) == 10 and found.kept == 10
    assert [(a.id, a.task) for a in read_answers(out)] == [(p.id, p.task) for p in moved]


def test_prompts_beyond_the_context_are_listed_and_the_rest_goes_on(
    ask: Ask, prompts: tuple[Prompt, ...], out: Path
) -> None:
    long = plain_prompt("word " * 300)
    with serving(FakeServer(context=200)) as server:
        found = ask([*prompts[:3], long, *prompts[3:6]], url=server.url)
        assert (found.answered, found.rejected) == (6, 1)
        assert max(p["max_new_tokens"] + len(ids) for p, ids in zip(server.params, server.asked, strict=True)) == 200
        before = len(server.asked)
        assert ask([*prompts[:3], long, *prompts[3:6]], url=server.url).rejected == 1
        assert len(server.asked) == before
    text = rejects_path(out).read_text()
    assert long.id in text and "tokens, the target takes fewer than 194" in text


def test_what_the_server_refuses_is_listed(ask: Ask, prompts: tuple[Prompt, ...], out: Path, tokenizer: Any) -> None:
    bad = ids_of(tokenizer, prompts[5])
    with serving(FakeServer(fault=lambda ids, n: 400 if ids == bad else None)) as server:
        found = ask(prompts, url=server.url)
        assert server.asked.count(bad) == 1
    assert (found.answered, found.rejected) == (19, 1)
    assert "status 400" in rejects_path(out).read_text()


@pytest.mark.parametrize("fault", [500, 503, "drop", "abort"])
def test_a_passing_fault_is_asked_again(ask: Ask, prompts: tuple[Prompt, ...], out: Path, fault: int | str) -> None:
    with serving(FakeServer(fault=lambda ids, n: fault if n == 0 else None)) as server:
        found = ask(prompts, url=server.url, batch=2)
    assert found.answered == 20 and len(server.asked) == 40
    assert not any(answer.text == "cut" for answer in read_answers(out))


def test_a_queue_that_is_full_for_a_while_is_no_hang(
    ask: Ask, prompts: tuple[Prompt, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    post, came = requests.Session.post, set()

    def full_at_first(session: requests.Session, url: str, json: dict[str, Any], **options: Any) -> requests.Response:
        ids = tuple(json["input_ids"])
        if ids not in came:
            came.add(ids)
            raise requests.ConnectTimeout
        return post(session, url, json=json, **options)

    monkeypatch.setattr(requests.Session, "post", full_at_first)
    with serving() as server:
        assert ask(prompts, url=server.url, batch=2).answered == 20


def test_a_prompt_on_which_a_working_server_fails_is_set_aside_and_asked_again_next_time(
    ask: Ask, prompts: tuple[Prompt, ...], tokenizer: Any
) -> None:
    bad = ids_of(tokenizer, prompts[0])
    with serving(FakeServer(fault=lambda ids, n: 500 if ids == bad else None, seconds=0.03)) as server:
        found = ask(prompts, url=server.url, batch=2)
        assert (found.answered, found.rejected) == (19, 1)
        server.fault = None
        found = ask(prompts, url=server.url)
    assert (found.answered, found.rejected, found.rejects) == (20, 0, None)


def test_a_server_that_goes_away_ends_the_run_and_the_next_goes_on(
    ask: Ask, prompts: tuple[Prompt, ...], out: Path
) -> None:
    server = FakeServer()
    server.fault = lambda ids, n: "drop" if len(server.answered) >= 7 else None
    with serving(server):
        with pytest.raises(RegenerateStopped, match=r"went away \(no connection\); 7 answers are kept in .*part, the"):
            ask(prompts, url=server.url, batch=1)
        assert not out.exists()
        server.fault = None
        done = list(server.answered)
        server.asked.clear()
        found = ask(prompts, url=server.url)
        assert (found.kept, found.answered) == (7, 20)
        assert not set(done) & set(server.asked)


def test_several_servers_share_and_one_may_go(ask: Ask, prompts: tuple[Prompt, ...]) -> None:
    first, second = FakeServer(seconds=0.01), FakeServer(seconds=0.01)
    first.fault = lambda ids, n: "drop" if len(first.answered) >= 3 else None
    with serving(first), serving(second):
        found = ask(prompts, url=f"{first.url},{second.url}/", batch=1)
    assert found.answered == 20
    assert len(first.answered) == 3 and len(second.answered) == 17


def test_a_server_that_is_not_there(ask: Ask, prompts: tuple[Prompt, ...], capsys: pytest.CaptureFixture[str]) -> None:
    nobody = "http://127.0.0.1:1"
    with pytest.raises(RegenerateStopped, match=r"No SGLang server answers at http://127.0.0.1:1 \(no connection\)"):
        ask(prompts, url=nobody)
    with serving() as server:
        assert ask(prompts, url=f"{nobody},{server.url}").answered == 20
    assert f"{nobody} is left out: no connection." in capsys.readouterr().err


def test_another_tokenizer_is_refused(ask: Ask, prompts: tuple[Prompt, ...], tokenizer: Any) -> None:
    with serving(FakeServer(tokenize=lambda text: [1, 2, 3])) as server:
        with pytest.raises(RegenerateError, match="another tokenizer than --target"):
            ask(prompts, url=server.url)
        assert server.asked == []
        server.tokenize = lambda text: tokenizer(text).input_ids
        assert ask(prompts, url=server.url).answered == 20


def test_seeds_are_of_the_prompt_alone(ask: Ask, prompts: tuple[Prompt, ...], out: Path) -> None:
    with serving() as server:
        ask(prompts[::-1], url=server.url, batch=7, temperature=0.7, seed=5)
        first = {answer.id: answer.output_ids for answer in read_answers(out)}
        seeds = {p["sampling_seed"] for p in server.params}
        assert len(seeds) == 20 and all(0 <= seed < 2**63 for seed in seeds)
        for path in out.parent.glob("answers.*"):
            path.unlink()
        ask(prompts, url=server.url, batch=2, temperature=0.7, seed=5)
        assert {answer.id: answer.output_ids for answer in read_answers(out)} == first


def test_a_server_that_ignores_seeds_is_told_of(
    ask: Ask, prompts: tuple[Prompt, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(FakeServer(is_deterministic=False)) as server:
        ask(prompts, url=server.url, temperature=1.0)
    assert "seeds have no effect" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changed", "flag"),
    [({"temperature": 0.5}, "--temperature 0.0, not 0.5"), ({"max_new_tokens": 9}, "--max-new-tokens 512, not 9")],
)
def test_answers_made_otherwise_are_not_mixed(
    ask: Ask, prompts: tuple[Prompt, ...], changed: dict[str, Any], flag: str
) -> None:
    with serving() as server:
        ask(prompts, url=server.url)
        with pytest.raises(RegenerateError, match=f"was begun with {flag}"):
            ask(prompts, url=server.url, **changed)


def test_another_target_is_not_mixed_and_the_same_elsewhere_is_the_same(
    ask: Ask, prompts: tuple[Prompt, ...], target_copy: Path
) -> None:
    with serving() as server:
        ask(prompts, url=server.url)
        assert ask(prompts, url=server.url, target=target_copy).kept == 20
        weights = target_copy / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-4] + b"\1\2\3\4")
        with pytest.raises(RegenerateError, match="begun with --target another model"):
            ask(prompts, url=server.url, target=target_copy)


def test_other_prompts_do_not_replace_all_answers(ask: Ask, prompts: tuple[Prompt, ...]) -> None:
    with serving() as server:
        ask(prompts[:4], url=server.url)
        with pytest.raises(RegenerateError, match="has 4 answers, none to one of these 5 prompts"):
            ask(prompts[4:9], url=server.url)


def test_two_runs_into_one_file(ask: Ask, prompts: tuple[Prompt, ...], tmp_path: Path) -> None:
    with serving(FakeServer(seconds=0.1)) as server:
        results: list[Any] = []
        first = threading.Thread(target=lambda: results.append(ask(prompts, url=server.url, batch=2)))
        first.start()
        while not server.asked:
            pass
        with pytest.raises(LockedError, match=r"is in use by `regenerate --out .*` \(process \d+ on "):
            ask(prompts, url=server.url)
        first.join()
    assert results[0].answered == 20 and len(server.asked) == 20


def test_no_prompt_can_be_answered(ask: Ask, out: Path) -> None:
    both = [plain_prompt("a " * 100), plain_prompt("b " * 100)]
    with serving(FakeServer(context=20)) as server, pytest.raises(RegenerateError, match="None of the 2 prompts could"):
        ask(both, url=server.url)
    assert not out.exists() and len(rejects_path(out).read_text().splitlines()) == 2


def test_chats_need_a_chat_template(ask: Ask, prompts: tuple[Prompt, ...], target_copy: Path, out: Path) -> None:
    (target_copy / "chat_template.jinja").write_text("{{ raise_exception('roles must alternate') }}")
    with serving() as server:
        found = ask(prompts, url=server.url, target=target_copy)
        assert (found.answered, found.rejected) == (18, 2)
        assert "the chat template refuses it (roles must alternate)" in rejects_path(out).read_text()
        (target_copy / "chat_template.jinja").unlink()
        out.unlink()
        with pytest.raises(RegenerateError, match=r"1 of 1 prompts are chats .* has no chat template"):
            ask([chat_prompt([Message("user", "a")])], url=server.url, target=target_copy)


@pytest.mark.parametrize("url", ["localhost:30000", "http://", "ftp://a", "http://a,,http://b", "http://a:99999"])
def test_what_is_no_address(ask: Ask, prompts: tuple[Prompt, ...], url: str) -> None:
    with pytest.raises(RegenerateError, match="which is no address"):
        ask(prompts, url=url)


def test_no_prompts_and_repeated_ones(ask: Ask, prompts: tuple[Prompt, ...], out: Path) -> None:
    with serving() as server:
        with pytest.raises(RegenerateError, match="no prompts"):
            ask([], url=server.url)
        assert ask([*prompts[:3], *prompts[:3]], url=server.url).answered == 3
        assert len(server.asked) == 3 and len(read_answers(out)) == 3
