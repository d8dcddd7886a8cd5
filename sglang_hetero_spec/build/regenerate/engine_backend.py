"""SGLang's offline engine in a child process, which is gone when this process is."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from sglang_hetero_spec.build.regenerate.backend import Limits, Refused, Reply, Request, outcome
from sglang_hetero_spec.build.regenerate.engine_child import Plan
from sglang_hetero_spec.build.regenerate.errors import RegenerateStopped
from sglang_hetero_spec.serving.server import stop

END_SECONDS = 10.0
CHILD = (sys.executable, "-m", "sglang_hetero_spec.build.regenerate.engine_child")
_MEMORY = r"MemoryError|out of memory|can't allocate memory|Not enough memory"


@dataclass(frozen=True)
class EngineSettings:
    """flags: SGLang's own, as on its command line. log: what the engine says; removed if all went well.

    concurrency: prompts in flight. kv_tokens: see `engine_child.Plan`. command: starts the child (tests have others).
    """

    target: str
    flags: tuple[str, ...]
    is_sampled: bool
    concurrency: int
    log: Path
    kv_tokens: int | None = None
    command: tuple[str, ...] = CHILD


class EngineBackend:
    """Entered when the target is loaded; left, the engine is stopped with all its processes."""

    def __init__(self, settings: EngineSettings) -> None:
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        self._to_child: BinaryIO | None = None
        self._from_child: BinaryIO | None = None
        self.limits = Limits(None, None)
        self.notes: list[str] = []
        self.is_seeded = True
        self.is_seeded_by_processor = False

    def __enter__(self) -> EngineBackend:
        try:
            self._start()
            hello = self._receive()
        except BaseException:
            self._stop()
            raise
        self.limits = Limits(hello["context"], hello["prompt"])
        self.is_seeded_by_processor = hello["is_seeded_by_processor"]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._stop(in_peace=kind is None)
        if kind is None:
            self._settings.log.unlink(missing_ok=True)

    def tokens_of(self, text: str) -> list[tuple[str, tuple[int, ...]]]:
        return []  # the engine's tokenizer is the target's

    def answers(self, requests: Sequence[Request]) -> Iterator[Reply | Refused]:
        todo = iter(requests)
        for _, request in zip(range(self._settings.concurrency), todo, strict=False):
            self._send(request)
        for _ in requests:
            got = self._receive()
            for request in todo:  # the next one takes the free place
                self._send(request)
                break
            yield self._outcome(got)

    def _outcome(self, got: dict[str, Any]) -> Reply | Refused:
        if "refused" in got:
            return Refused(got["number"], f"the engine refused it: {' '.join(got['refused'].split())[:300]}")
        if "failed" in got:
            raise RegenerateStopped(f"The engine failed on a prompt ({' '.join(got['failed'].split())[:300]})")
        result = outcome(got["number"], got["answer"])
        if isinstance(result, str):
            raise RegenerateStopped(f"The engine's answer cannot be used ({result})")
        return result

    def _start(self) -> None:
        settings = self._settings
        requests_in, requests_out = os.pipe()
        replies_in, replies_out = os.pipe()
        self._to_child, self._from_child = os.fdopen(requests_out, "wb", buffering=0), os.fdopen(replies_in, "rb")
        plan = Plan(
            os.getpid(), requests_in, replies_out, settings.target, settings.flags, settings.is_sampled,
            settings.kv_tokens,
        )  # fmt: skip
        try:
            with settings.log.open("wb") as log:
                self._process = subprocess.Popen(
                    [*settings.command, plan.to_argument()],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    pass_fds=(requests_in, replies_out),
                    # A group of its own: Ctrl-C reaches this process alone, which then ends the group as a whole.
                    start_new_session=True,
                )
        finally:
            os.close(requests_in)
            os.close(replies_out)

    def _send(self, request: Request) -> None:
        assert self._to_child is not None
        rest = memoryview(json.dumps(asdict(request)).encode() + b"\n")
        try:
            while rest:
                rest = rest[self._to_child.write(rest) or 0 :]
        except BrokenPipeError:
            raise self._ended() from None

    def _receive(self) -> dict[str, Any]:
        assert self._from_child is not None
        line = self._from_child.readline()
        if not line.endswith(b"\n"):
            raise self._ended()
        return json.loads(line)

    def _ended(self) -> RegenerateStopped:
        assert self._process is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(END_SECONDS)
        text = self._settings.log.read_text(encoding="utf-8", errors="replace")
        why = why_it_ended(text, self._process.returncode)
        return RegenerateStopped(f"SGLang {why}, its log is {self._settings.log}")

    def _stop(self, in_peace: bool = False) -> None:
        if self._to_child is not None:
            with contextlib.suppress(OSError):
                self._to_child.close()  # the child ends by itself
        if self._process is not None:
            if in_peace:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(END_SECONDS)
            stop([self._process])
        if self._from_child is not None:
            self._from_child.close()


def why_it_ended(log: str, code: int | None) -> str:
    """The end of a sentence about an engine that ended by itself: its own last word, if it left one."""
    own = re.findall(r"^hetero-spec: (.+)$", log, re.MULTILINE)
    if own:
        return f"did not start: {own[-1].rstrip('.')}"
    usage = re.findall(r"^sglang serve: error: (.+)$", log, re.MULTILINE)
    if usage:
        return f"does not take these flags ({usage[-1][:200]})"
    if re.search(_MEMORY, log, re.IGNORECASE):
        return "ran out of memory (close other programs, or lower --batch or SGLang's --max-total-tokens)"
    errors = re.findall(r"^(?:\w+\.)*\w*(?:Error|Exception): .+$", log, re.MULTILINE)
    if code == -signal.SIGKILL and not errors:  # with an error, it was SGLang that killed its own processes
        return "was killed, most likely for want of memory"
    said = f" ({errors[-1].strip()[:300]})" if errors else ""
    return f"ended with code {code}{said}"
