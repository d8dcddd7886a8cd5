"""SGLang's request log, written by SGLang's own logger where it is installed, else by lines of its form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sglang_hetero_spec.build.prompts import LogError, Message, chat_prompt, plain_prompt, read_log

STAMP = "[2026-11-21 08:00:00] "
NASTY = "It's \"quoted\", text='x', input_ids=[1],\nwith 'messages': [ and \\ and caf\u00e9"


def event(kind: str, obj: dict[str, Any], rid: str | None = None) -> str:
    row = {"timestamp": "2026-11-21T08:00:00", "event": kind, **({"rid": rid} if rid else {}), "obj": obj}
    return STAMP + json.dumps(row, ensure_ascii=False)


def text_line(kind: str, rid: str, text: Any, ids: Any = None) -> str:
    return (
        f"{STAMP}{kind}: obj=GenerateReqInput(rid={rid!r}, session_id=None, text={text}, input_ids={ids!r},"
        " input_embeds=None, sampling_params={'temperature': 0})"
    )


def read(tmp_path: Path, *lines: str) -> Any:
    path = tmp_path / "host_0.log"
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return read_log(path)


def test_a_request_is_taken_once_though_it_is_logged_twice(tmp_path: Path) -> None:
    log = read(
        tmp_path,
        "INFO: server chatter {not json}",
        event("request.received", {"text": NASTY}, "r1"),
        event("request.received", {"text": "b"}, "r2"),
        event("request.finished", {"text": NASTY}, "r1"),
        event("other.event", {"text": "c"}, "r3"),
    )
    assert log.prompts == (plain_prompt(NASTY), plain_prompt("b"))
    assert log.rejects == ()


def test_a_batch_is_several_prompts(tmp_path: Path) -> None:
    log = read(tmp_path, event("request.received", {"text": ["a", "b"]}), text_line("Receive", "x", ["c", "d'"]))
    assert [prompt.text for prompt in log.prompts] == ["a", "b", "c", "d'"]


def test_a_chat_of_the_openai_api_is_taken_as_it_was_sent(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": NASTY}]
    expected = (chat_prompt([Message("user", NASTY)]),)
    as_json = read(
        tmp_path,
        event("request.received.openai", {"messages": messages, "model": "m"}),
        event("request.received", {"text": None, "input_ids": [1, 2]}, "r1"),
        event("request.finished", {"text": "<s>templated", "input_ids": [1, 2]}, "r1"),
    )
    assert (as_json.prompts, as_json.rejects) == (expected, ())
    as_text = read(
        tmp_path,
        f"{STAMP}Receive OpenAI: obj={{'messages': {messages!r}, 'model': 'm', 'stop': None}}, headers={{'a': 'b'}}",
        text_line("Receive", "r1", None, [1, 2]),
        text_line("Finish", "r1", "'<s>templated'", [1, 2]),
    )
    assert (as_text.prompts, as_text.rejects) == (expected, ())


def test_a_completion_of_the_openai_api(tmp_path: Path) -> None:
    log = read(tmp_path, event("request.received.openai", {"model": "m", "prompt": "a"}))
    assert log.prompts == (plain_prompt("a"),)


def test_the_text_that_ids_stand_for_is_in_the_finished_line(tmp_path: Path) -> None:
    log = read(tmp_path, text_line("Receive", "r1", None, [1]), text_line("Finish", "r1", repr(NASTY), [1]))
    assert log.prompts == (plain_prompt(NASTY),)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (event("request.received", {"sampling_params": {}}, "r"), "left the prompt out; start the server with"),
        (event("request.received", {"text": None, "input_ids": [1]}, "r"), "only token ids"),
        (event("request.received", {"text": "a" * 1024 + "..." + "b" * 1024}, "r"), "shortened the prompt"),
        (text_line("Receive", "r", "'aaa' ... 'bbb'"), "shortened the prompt"),
        (f"{STAMP}Receive OpenAI: obj={{'messages': [1] ... [2], 'model': 'm'}}", "shortened the prompt"),
        (f"{STAMP}Receive: obj=GenerateReqInput(session_id=None, stream=False)", "left the prompt out"),
        (f"{STAMP}Receive: obj=GenerateReqInput(rid='r', text='torn", "left the prompt out"),
    ],
)
def test_what_the_log_does_not_hold_is_a_reject(tmp_path: Path, line: str, reason: str) -> None:
    log = read(tmp_path, event("request.received", {"text": "good"}, "r0"), line)
    assert log.prompts == (plain_prompt("good"),)
    (reject,) = log.rejects
    assert reject.line == 2 and reason in reject.reason


def test_a_log_of_level_0_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(LogError, match="--log-requests-level 3"):
        read(tmp_path, event("request.received", {}, "r1"), event("request.received", {}, "r2"))


@pytest.mark.slow
@pytest.mark.parametrize("form", ["json", "text"])
def test_lines_of_sglangs_own_logger(tmp_path: Path, form: str) -> None:
    io_struct = pytest.importorskip("sglang.srt.managers.io_struct", reason="SGLang is not installed")
    from sglang.srt.utils.request_logger import RequestLogger

    logger = RequestLogger(True, 3, form, [str(tmp_path / form)])
    request = io_struct.GenerateReqInput(text=NASTY, sampling_params={"temperature": 0.0}, rid="r1")
    logger.log_openai_received_request({"messages": [{"role": "user", "content": NASTY}], "model": "m"})
    logger.log_received_request(request)
    logger.log_finished_request(request, {"text": "answer", "meta_info": {"e2e_latency": 1.0}})
    for target in logger.targets:
        for handler in target.handlers:
            handler.flush()
    (path,) = (tmp_path / form).iterdir()
    assert read_log(path).prompts == (chat_prompt([Message("user", NASTY)]), plain_prompt(NASTY))
