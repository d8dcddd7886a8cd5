"""The growing `answers.jsonl.part` and the finished answers.jsonl, which replaces it in the order of the prompts."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from sglang_hetero_spec.build.prompts import Prompt
from sglang_hetero_spec.build.regenerate.answers import Answer, from_line, to_line
from sglang_hetero_spec.build.regenerate.errors import RegenerateError, cannot_write

_SYNC_SECONDS = 2.0  # what a loss of power may cost; a killed process loses nothing


class _Place(NamedTuple):
    path: Path
    offset: int
    length: int


class AnswerStore:
    """Answers by id, on disk as soon as they are added. Answers of an earlier run at the same path are found."""

    def __init__(self, out: Path) -> None:
        """RegenerateError for a line that is no answer; a torn last line of the part file is dropped."""
        self.out = out
        self.part = out.with_name(out.name + ".part")
        self._places: dict[str, _Place] = {}
        self._file: int | None = None
        self._size = 0
        self._synced = time.monotonic()
        self._read(out)
        self._read(self.part)

    def __enter__(self) -> AnswerStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __contains__(self, prompt_id: str) -> bool:
        return prompt_id in self._places

    def __len__(self) -> int:
        return len(self._places)

    def add(self, answer: Answer) -> None:
        """Append one whole line. RegenerateStopped if it cannot be written; the file then holds none of it."""
        line = to_line(answer)
        try:
            if self._file is None:
                self._open()
            assert self._file is not None
            _write(self._file, line)
            if time.monotonic() - self._synced > _SYNC_SECONDS:
                self._sync()
        except OSError as error:
            self._cut()
            raise cannot_write(self.part, error) from None
        self._places[answer.id] = _Place(self.part, self._size, len(line))
        self._size += len(line)

    def is_finished(self, prompts: Sequence[Prompt]) -> bool:
        """Whether answers.jsonl already is what `finish` would write."""
        if self.part.exists() or not self.out.exists():
            return False
        wanted = [prompt for prompt in prompts if prompt.id in self]
        in_file = [prompt_id for prompt_id, place in self._places.items() if place.path == self.out]
        if in_file != [prompt.id for prompt in wanted]:
            return False
        return all(answer.task == prompt.task for prompt, answer in self.answers(prompts))

    def answers(self, prompts: Sequence[Prompt]) -> Iterator[tuple[Prompt, Answer]]:
        """The prompts that have an answer, in order, each with it; read from disk one at a time."""
        with contextlib.ExitStack() as stack:
            paths = {place.path for place in self._places.values()}
            files = {path: stack.enter_context(path.open("rb")) for path in paths}
            for prompt in prompts:
                place = self._places.get(prompt.id)
                if place is not None:
                    files[place.path].seek(place.offset)
                    yield prompt, from_line(files[place.path].read(place.length), str(place.path))

    def finish(self, prompts: Sequence[Prompt]) -> None:
        """Write the answers to `prompts` as answers.jsonl, in their order and with their tasks, and drop the rest."""
        self.close()
        whole = self.out.with_name(self.out.name + ".sorted.part")  # `.part` is what it is made from
        try:
            with whole.open("wb") as file:
                for prompt, answer in self.answers(prompts):
                    file.write(to_line(replace(answer, task=prompt.task)))
                file.flush()
                os.fsync(file.fileno())
            os.replace(whole, self.out)
            self.part.unlink(missing_ok=True)
        except OSError as error:
            with contextlib.suppress(OSError):
                whole.unlink(missing_ok=True)
            raise cannot_write(self.out, error) from None

    def close(self) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            with contextlib.suppress(OSError):
                os.fsync(file)
            os.close(file)

    def _read(self, path: Path) -> None:
        if not path.exists():
            return
        offset = 0
        try:
            with path.open("rb") as file:
                for number, line in enumerate(file, start=1):
                    if not line.endswith(b"\n"):
                        break
                    answer = from_line(line, f"{path}, line {number}")
                    self._places.setdefault(answer.id, _Place(path, offset, len(line)))
                    offset += len(line)
        except OSError as error:
            raise RegenerateError(f"{path} cannot be read ({error.strerror}); check its permissions.") from None
        if path == self.part:
            self._size = offset

    def _open(self) -> None:
        self._file = os.open(self.part, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
        os.ftruncate(self._file, self._size)  # a torn last line goes
        os.lseek(self._file, self._size, os.SEEK_SET)

    def _cut(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                os.lseek(self._file, self._size, os.SEEK_SET)  # before the next attempt leaves a hole
                os.ftruncate(self._file, self._size)

    def _sync(self) -> None:
        assert self._file is not None
        os.fsync(self._file)
        self._synced = time.monotonic()


def _write(file: int, data: bytes) -> None:
    """All of `data`: the kernel may take a part of it, the last time before a disk is full."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(file, rest) :]
