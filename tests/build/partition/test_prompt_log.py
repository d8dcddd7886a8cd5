"""The logs that a user may have: each format, and each way in which a line or a file can be bad."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from sglang_hetero_spec.build.prompts import (
    Log,
    LogError,
    Message,
    chat_prompt,
    plain_prompt,
    read_log,
    read_prompts,
    write_prompts,
    write_rejects,
)


def log_of(tmp_path: Path, *rows: Any, name: str = "log.jsonl") -> Log:
    path = tmp_path / name
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), "utf-8")
    return read_log(path)


def test_one_object_a_line(tmp_path: Path) -> None:
    log = log_of(
        tmp_path,
        {"prompt": "Say hello.", "task": "greet"},
        {"messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}]},
        {"question_id": 3, "category": "qa", "turns": ["Who?"]},
        {"turns": ["One", "Two"], "task": None},
    )
    assert log.rejects == ()
    assert log.prompts[0] == plain_prompt("Say hello.", "greet")
    assert log.prompts[1] == chat_prompt([Message("system", "Be kind."), Message("user", "Hi")])
    assert log.prompts[2] == plain_prompt("Who?")
    assert log.prompts[3] == chat_prompt([Message("user", "One"), Message("user", "Two")])
    assert [prompt.text for prompt in log.prompts] == ["Say hello.", "Hi", "Who?", "One\n\nTwo"]


def test_the_id_is_of_the_content_alone(tmp_path: Path) -> None:
    log = log_of(
        tmp_path, {"prompt": "a", "task": "x"}, {"prompt": "a"}, {"messages": [{"role": "user", "content": "a"}]}
    )
    first, again, chat = log.prompts
    assert first.id == again.id != chat.id
    assert len(first.id) == 16 and int(first.id, 16) >= 0


def test_what_the_assistant_said_last_is_the_answer_not_the_prompt(tmp_path: Path) -> None:
    turns = [
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": "x"},
        {"role": "user", "content": "c"},
    ]
    log = log_of(tmp_path, {"messages": [*turns, {"role": "assistant", "content": "answer"}]})
    assert log.prompts[0].messages == (Message("user", "ab"), Message("assistant", "x"), Message("user", "c"))


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("{", "not JSON (column 2"),
        ('{"prompt": "a"} x', "not JSON (column 17: extra data)"),
        ("[1]", "an array, not an object"),
        ("7", "a number, not an object"),
        ('{"prompt": ' + "9" * 5000 + "}", "a number of too many digits"),
        ("[" * 100_000, "nested too deeply"),
        ({"text": "a"}, "none of prompt, messages, turns"),
        ({"prompt": "a", "turns": ["b"]}, "prompt and turns"),
        ({"prompt": 7}, "the prompt is not a text"),
        ({"prompt": " \n"}, "the prompt is empty"),
        ({"prompt": []}, "prompt is an empty list"),
        ({"prompt": "a", "task": 3}, "task is not a text"),
        ('{"prompt": "\\ud800"}', "half a character"),
        ({"turns": "a"}, "turns is not a list"),
        ({"turns": ["a", 1]}, "turns[1] is not a text"),
        ({"messages": []}, "messages is not a list"),
        ({"messages": ["a"]}, "messages[0] is not an object"),
        ({"messages": [{"role": "robot", "content": "a"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": ""}]}, "messages[0].content is empty"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "content[0] is not text"),
        ({"messages": [{"role": "system", "content": "a"}]}, "no turn of the user"),
        ({"messages": [{"role": "assistant", "content": "a"}]}, "no turn of the user"),
    ],
)
def test_a_bad_line_is_a_reject_and_the_rest_goes_on(tmp_path: Path, row: Any, reason: str) -> None:
    log = log_of(tmp_path, {"prompt": "good"}, "", row, {"prompt": "also good"})
    assert [prompt.text for prompt in log.prompts] == ["good", "also good"]
    (reject,) = log.rejects
    assert reject.line == 3
    assert reason in reject.reason
    assert reject.raw == (row if isinstance(row, str) else json.dumps(row))


def test_a_line_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_bytes(b"one\ncaf\xe9\ntwo\r\n")
    log = read_log(path)
    assert [prompt.text for prompt in log.prompts] == ["one", "two"]
    assert (log.rejects[0].line, log.rejects[0].reason) == (2, "not UTF-8 (byte 3 of the line)")
    write_rejects(tmp_path / "rejects.jsonl", log.rejects)
    assert json.loads((tmp_path / "rejects.jsonl").read_text()) == {
        "line": 2,
        "reason": "not UTF-8 (byte 3 of the line)",
        "raw": "caf\\xe9",
    }


def test_plain_text_has_one_prompt_a_line_whatever_the_line_holds(tmp_path: Path) -> None:
    lines = ["Why?", "  [1, 2] is a list", 'He said {"a": 1}', "form\x0cfeed \u2028 separators"]
    log = log_of(tmp_path, *lines, name="log.txt")
    assert [prompt.text for prompt in log.prompts] == lines


def test_gzip_and_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl.gz"
    path.write_bytes(gzip.compress(b'\xef\xbb\xbf{"prompt": "a"}\n'))
    assert read_log(path).prompts == (plain_prompt("a"),)
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(LogError, match="gzip"):
        read_log(path)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.jsonl", b"", "is empty; give a log"),
        ("a.txt", b"\n \n", "is empty; give a log"),
        ("a.bin", bytes(range(256)) * 64, "is a binary file"),
        ("a.pkl", b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00}\x94.", "never opened"),
        ("a.txt", "\u00e9".encode("latin-1") * 999, "is a binary file"),
        ("a.json", b'[\n{"prompt": "a"}\n]\n', "one JSON array"),
        ("a.jsonl", b"no\nno\n", "no line that can be used (2 rejected; line 1: not JSON"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_sentence(tmp_path: Path, name: str, content: bytes, sentence: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(LogError) as refused:
        read_log(path)
    message = str(refused.value)
    assert sentence in message and str(path) in message
    assert message.endswith((".", ").")) and "\n" not in message


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(LogError, match="cannot be read"):
        read_log(tmp_path / "none")
    with pytest.raises(LogError, match="is a folder"):
        read_log(tmp_path)


def test_prompts_travel_through_their_file(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    written = (
        plain_prompt("a\nb \u2028 \u00e9", "label", "task"),
        chat_prompt([Message("user", "x"), Message("assistant", ""), Message("user", "y")], None, "task"),
        plain_prompt("outlier"),
    )
    write_prompts(path, written)
    assert read_prompts(path) == written
    assert [path.name for path in tmp_path.iterdir()] == ["prompts.jsonl"]
    assert next((prompt.text, prompt.label) for prompt in read_log(path).prompts) == (written[0].text, "label")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"prompt": "other"}, "is not that of its content"),
        ({"extra": 1}, "line 1: extra"),
        ({"id": "x"}, "line 1: id"),
        ({"task": 1}, "line 1: task"),
        ({"messages": []}, "line 1: messages"),
        ({"prompt": None}, "needs `prompt` or `messages`"),
    ],
)
def test_an_edited_prompts_file_is_refused(tmp_path: Path, change: dict[str, Any], sentence: str) -> None:
    path = tmp_path / "prompts.jsonl"
    write_prompts(path, [plain_prompt("a")])
    path.write_text(json.dumps(json.loads(path.read_text()) | change) + "\n")
    with pytest.raises(LogError, match="line 1") as refused:
        read_prompts(path)
    assert sentence in str(refused.value)


def test_a_prompts_file_that_is_torn_or_repeats_itself(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    write_prompts(path, [plain_prompt("a"), plain_prompt("a")])
    with pytest.raises(LogError, match="repeats"):
        read_prompts(path)
    write_prompts(path, [plain_prompt("a")])
    path.write_text(path.read_text()[:-5])
    with pytest.raises(LogError, match="line 1"):
        read_prompts(path)
    path.write_text("")
    with pytest.raises(LogError, match="holds no prompt"):
        read_prompts(path)
