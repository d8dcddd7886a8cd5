"""`hetero-spec build` in this process, whole, in seconds: a fake server answers, a fake engine is measured, and what
would be a process per drafter runs here."""

from __future__ import annotations

import contextlib
import functools
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from sglang_hetero_spec import cli
from sglang_hetero_spec.build import drafters, pipeline
from sglang_hetero_spec.build.layout import Layout
from sglang_hetero_spec.commands import build as command
from tests.build.profile.fake_engine import FakeEngine
from tests.build.regenerate.fakes import FakeServer
from tests.support.tiny_models import TinyShape, write_tiny_model

CONTEXT = 160
LARGEST_ID = 200
SMALL = {
    "measure": "false", "partition.use_labels": "true", "regenerate.max_new_tokens": "12", "align.tokens": "600",
    "align.evaluations": "1", "align.batch_tokens": "512", "align.optimizer": "adamw",
    "align.shape": "{hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 16}",
    "profile.concurrency": "[2]", "profile.num_prompts": "2", "profile.passes": "1", "profile.max_new_tokens": "8",
}  # fmt: skip


class SmallVocabulary(FakeServer):
    """Answers in tokens that the tiny target has."""

    def generate(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]] | None:
        found = super().generate(body)
        if found is not None and "output_ids" in found[1]:
            found[1]["output_ids"] = [token % LARGEST_ID for token in found[1]["output_ids"]]
        return found


def write_target(path: Path) -> Path:
    return write_tiny_model(path, seed=1, shape=TinyShape(hidden=32, layers=1, max_len=CONTEXT))


def write_log(path: Path, tasks: Sequence[str] = ("sum", "greet"), per_task: int = 16) -> Path:
    """Labelled prompts, a few words each."""
    words = {task: " ".join(task + ending for ending in ("ing", "er", "s")) for task in tasks}
    rows = [{"prompt": f"{words[task]} {number}", "task": task} for number in range(per_task) for task in tasks]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@dataclass(frozen=True)
class Ended:
    """How the command ended. said: its lines, without times."""

    code: int
    stdout: str
    said: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """The one that a refusal or a failure consists of."""
        assert self.code in (1, 2), self.said
        assert "Traceback" not in "".join(self.said)
        found = [line for line in self.said if line.startswith("hetero-spec: ")]
        assert len(found) == 1 and found == [self.said[-1]], self.said
        assert "failed with" not in found[0], found  # that is the last resort, which names a class of Python's
        return found[0].removeprefix("hetero-spec: ")

    @property
    def done_before(self) -> list[str]:
        return [line.removesuffix(": done before") for line in self.said if line.endswith(": done before")]


@dataclass
class Whole:
    """One build, to be run again and again. on_say: is told what it says, on_align: which drafter it aligns next.

    align: more flags, by drafter. aligned: the drafters whose alignment was begun, in all runs.
    """

    target: Path
    log: Path
    out: Path
    url: str
    settings: dict[str, str] = field(default_factory=dict)
    engine: FakeEngine = field(default_factory=FakeEngine)
    on_say: Callable[[str], None] = lambda text: None
    on_align: Callable[[str], None] = lambda name: None
    align: dict[str, list[str]] = field(default_factory=dict)
    aligned: list[str] = field(default_factory=list)

    @property
    def layout(self) -> Layout:
        return Layout(self.out)

    def run(self) -> Ended:
        given = {**SMALL, "regenerate.url": self.url, **self.settings}
        flags = [part for key, value in given.items() for part in ("--set", f"{key}={value}")]
        stdout, said = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pipeline, "profile", functools.partial(pipeline.profile, start=self.engine.start))
            patch.setattr(drafters, "_started", functools.partial(_Here, self))
            patch.setattr(command, "say", self._say)
            with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(said):
                code = cli.main(
                    ["build", "--target", str(self.target), "--prompts", str(self.log), "--out", str(self.out), *flags]
                )
        return Ended(code, stdout.getvalue(), tuple(said.getvalue().splitlines()))

    def _say(self, text: str) -> None:
        from sglang_hetero_spec.commands.output import say

        say(text)
        self.on_say(text)


class _Here:
    """In place of a process: `hetero-spec align` with its words in the log."""

    def __init__(self, whole: Whole, arguments: list[str], log: Path, threads: int) -> None:
        self._whole, self._arguments, self._log = whole, arguments, log

    def __enter__(self) -> _Here:
        name = Path(self._arguments[self._arguments.index("--out") + 1]).name
        self._whole.aligned.append(name)
        self._whole.on_align(name)
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            self._code = cli.main([*self._arguments, *self._whole.align.get(name, [])])
        with contextlib.suppress(OSError):
            self._log.write_text(said.getvalue())
        return self

    def poll(self) -> int:
        return self._code

    def __exit__(self, *_: object) -> None:
        pass
