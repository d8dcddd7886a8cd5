"""`hetero-spec ngram-corpus`: a corpus from answers or text, and what is no such thing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from sglang_hetero_spec.build.regenerate.answers import Answer, to_line
from sglang_hetero_spec.cli import main
from sglang_hetero_spec.ngram.files import read_corpus
from tests.engine.pools import ASSETS

TARGET = ASSETS / "target"
ANSWERS = {"a": [[5, 6, 7], [8]], "b": [[9, 10], []], None: [[11]]}


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    lines = [
        to_line(Answer(f"{task}{number}", (1, 2), tuple(ids), "", "stop", task))
        for task, texts in ANSWERS.items()
        for number, ids in enumerate(texts)
    ]
    (tmp_path / "answers.jsonl").write_bytes(b"".join(lines))
    return tmp_path / "answers.jsonl"


def made(folder: Path) -> list[list[int]]:
    return [text.tolist() for text in read_corpus(folder, 4096)]


def test_answers_of_a_task_or_of_all(answers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main(["ngram-corpus", "--answers", str(answers), "--task", "a", "--out", str(out), "--json"]) == 0
    assert made(out) == [[5, 6, 7], [8]]
    assert json.loads(capsys.readouterr().out) == {
        "path": str(out / "corpus.safetensors"), "texts": 2, "tokens": 4, "capacity": 1024
    }  # fmt: skip
    assert main(["ngram-corpus", "--answers", str(answers), "--out", str(out), "--target", str(TARGET)]) == 0
    assert made(out) == [[5, 6, 7], [8], [9, 10], [11]]


def test_text_files(tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text("def f(x):\n    return x\n")
    arguments = ["--texts", str(tmp_path / "one.py"), "--target", str(TARGET), "--out", str(tmp_path / "out")]
    assert main(["ngram-corpus", *arguments]) == 0
    (text,) = made(tmp_path / "out")
    assert len(text) > 5


def test_what_is_no_corpus(answers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {
        "empty": b"",
        "text": b"some text",
        "binary": bytes(range(256)),
        "zeros": b"a\0b",
        "huge": b"a b " * 20_000,
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "none.jsonl").write_bytes(b"")
    (tmp_path / "ids.jsonl").write_bytes(to_line(Answer("x", (1,), (1, 5000), "", "stop", "a")))
    texts = lambda name: ["--texts", str(tmp_path / name), "--target", str(TARGET)]  # noqa: E731
    for arguments, says in (
        (["--answers", str(tmp_path / "none.jsonl")], "The corpus is empty"),
        (["--answers", str(tmp_path / "nowhere")], "cannot be read"),
        (["--answers", str(tmp_path / "binary")], "is not an answer"),
        (["--answers", str(answers), "--task", "c"], "has no answer of the task `c` (its tasks: a, b)"),
        (["--answers", str(tmp_path / "ids.jsonl"), "--target", str(TARGET)], "hold the token id 5000, and --target"),
        (texts("empty"), "The corpus is empty"),
        (texts("binary"), "is not UTF-8 text"),
        (texts("zeros"), "holds zero bytes"),
        (texts("nowhere"), "cannot be read"),
        ([*texts("huge"), "--max-tokens", "2048"], "more than 2,048 tokens"),
        ([*texts("huge"), "--max-tokens", "1024"], "has 80,000 bytes, more than 1,024 tokens can be"),
        ([*texts("text"), "--max-tokens", "1"], "--max-tokens 1 cannot be"),
        (["--texts", str(tmp_path / "text")], "--texts needs --target"),
    ):
        assert main(["ngram-corpus", *arguments, "--out", str(tmp_path / "out")]) == 2, arguments
        message = capsys.readouterr().err
        assert says in message and message.count("\n") == 1, message
    assert not (tmp_path / "out").exists()


def test_ids_are_kept_whole(tmp_path: Path) -> None:
    """Vocabularies are larger than 16 bits."""
    (tmp_path / "answers.jsonl").write_bytes(to_line(Answer("x", (1,), (1, 200_000), "", "stop", None)))
    assert main(["ngram-corpus", "--answers", str(tmp_path / "answers.jsonl"), "--out", str(tmp_path / "out")]) == 0
    assert np.concatenate(read_corpus(tmp_path / "out", 1 << 20)).tolist() == [1, 200_000]
