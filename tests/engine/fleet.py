"""The servers of a test session: started when first asked for, at most a few at a time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from tests.engine.cases import CONCURRENCY, Case
from tests.engine.pools import Models
from tests.support.servers import Server, running_server

# The fraction only bounds what --max-total-tokens asks for; a small one fails where other programs take memory.
EXACT = ("--dtype", "float32", "--random-seed", "7", "--mem-fraction-static", "0.9")
# Objects bound to a schema then end: the demo's target would fill its tokens with blanks.
EXACT += ("--constrained-json-disable-any-whitespace",)
ROOMY = ("--max-total-tokens", "16384")
# Under overlap scheduling SGLang counts a token for penalties one step late (schedule_batch.py,
# `cumulate_penalty_output_tokens`); speculation on CPU runs without it, so the reference does too.
SYNCHRONOUS = ("--disable-overlap-schedule",)
# SGLang ends the process by itself when KV slots or request rows are missing while it is idle; these look for it
# while it is busy too, and for slots that have two owners.
STRICT = {"SGLANG_ENABLE_STRICT_MEM_CHECK_DURING_BUSY": "1", "SGLANG_CHECK_KV_PAGE_INVARIANTS": "1"}


def ask(server: Server, cases: list[Case], concurrency: int = CONCURRENCY) -> list:
    """The answers to the cases, in order."""
    each = [case.request() for case in cases]
    return server.generate_all([case.prompt for case in cases], concurrency=concurrency, each=each)


class Reference:
    """Answers without speculation. Each is computed once in a session."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._answers: dict[str, object] = {}

    def answers(self, cases: list[Case]) -> list:
        plain = {case.key: Case(case.prompt, case.params, case.fields) for case in cases}
        missing = [case for key, case in plain.items() if key not in self._answers]
        for case, answer in zip(missing, ask(self.server, missing), strict=True):
            self._answers[case.key] = answer
        return [self._answers[case.key] for case in cases]

    def best_two(self, case: Case, place: int) -> list:
        case = case.with_fields(return_logprob=True, top_logprobs_num=2)
        answer = self.answers([case])[0]
        first = answer[0] if isinstance(answer, list) else answer
        return first["meta_info"]["output_top_logprobs"][place]


@dataclass
class Fleet:
    """The reference and the usual HETERO server live as long as the session; one more, with other flags, at a time."""

    models: Models
    pool: Path
    folder: Path
    _stack: ExitStack = field(default_factory=ExitStack)
    _running: dict[str, Server] = field(default_factory=dict)
    _special: ExitStack = field(default_factory=ExitStack)
    _special_flags: tuple[str, ...] = ()

    def start_usual(self) -> None:
        """Both at once: most of a start is imports."""
        if not self._running:
            with ThreadPoolExecutor(2) as threads:
                jobs = {
                    "reference": threads.submit(self._start, self._stack, "reference", *ROOMY, *SYNCHRONOUS),
                    "hetero": threads.submit(self._start, self._stack, "hetero", *ROOMY, *self._hetero_flags()),
                }
            self._running = {name: job.result() for name, job in jobs.items()}

    def usual(self, name: str) -> Server:
        self.start_usual()
        return self._running[name]

    def special(self, *flags: str) -> Server:
        """HETERO with further flags; replaces the one that was started so before."""
        if self._special_flags != flags:
            self._special.close()
            name = "hetero" + "".join(flags)
            server = self._start(
                self._special, name, *(() if "--max-total-tokens" in flags else ROOMY), *flags, *self._hetero_flags()
            )
            self._running[name] = server
            self._special_flags = flags
        return self._running["hetero" + "".join(flags)]

    def close(self) -> None:
        self._special.close()
        self._stack.close()

    def _hetero_flags(self) -> tuple[str, ...]:
        return ("--speculative-algorithm", "HETERO", "--speculative-draft-model-path", str(self.pool))

    def _start(self, stack: ExitStack, name: str, *flags: str) -> Server:
        log = self.folder / f"{name}.log"
        return stack.enter_context(running_server(self.models.target, log, *EXACT, *flags, env=STRICT))
