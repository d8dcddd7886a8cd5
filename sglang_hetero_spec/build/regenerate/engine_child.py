"""The process that holds SGLang's offline engine. Requests come and answers go as JSON lines over two pipes.

    python -m sglang_hetero_spec.build.regenerate.engine_child '{"parent": PID, "requests": FD, ...}'

Nothing of SGLang is imported before the CPU engine is set up, which is why this is a process of its own.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import signal
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO

PR_SET_PDEATHSIG = 1  # linux/prctl.h


@dataclass(frozen=True)
class Plan:
    """What the parent asks for. requests, replies: file descriptors. kv_tokens: slots of the CPU engine's cache."""

    parent: int
    requests: int
    replies: int
    target: str
    flags: tuple[str, ...]
    is_sampled: bool
    kv_tokens: int | None

    def to_argument(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_argument(cls, text: str) -> Plan:
        values = json.loads(text)
        return cls(**{**values, "flags": tuple(values["flags"])})


def main(argv: Sequence[str]) -> int:
    plan = Plan.from_argument(argv[0])
    if not end_with(plan.parent):
        return 1
    from sglang_hetero_spec import cpu

    on_cpu = cpu.enable()
    from sglang.srt.entrypoints.engine import Engine
    from sglang.srt.plugins import load_plugins
    from sglang.srt.server_args import prepare_server_args

    load_plugins()
    engine = Engine(server_args=prepare_server_args(engine_arguments(plan, on_cpu)))
    with os.fdopen(plan.requests, "rb") as requests, os.fdopen(plan.replies, "wb", buffering=0) as replies:
        _send(replies, _greeting(engine, on_cpu))
        engine.loop.run_until_complete(_serve(engine, requests, replies, on_cpu))
    engine.shutdown()
    return 0


def end_with(parent: int) -> bool:
    """Let the kernel end this process when `parent` ends, however it ends; False if it has ended already."""
    if sys.platform == "linux":
        # Killed, not asked: there is nothing to save, and the next run wants the memory.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    return os.getppid() == parent


def engine_arguments(plan: Plan, on_cpu: bool) -> list[str]:
    """SGLang's command line: the user's flags, and what they leave open."""
    defaults: dict[str, str | None] = {"--log-level": "warning", "--watchdog-timeout": "600"}
    if on_cpu:
        # float32: in bfloat16 the two best tokens are often equal, and the batch would decide between them.
        defaults |= {"--device": "cpu", "--dtype": "float32", "--mem-fraction-static": "0.5"}
        if plan.kv_tokens is not None:
            defaults["--max-total-tokens"] = str(plan.kv_tokens)
    if plan.is_sampled:
        defaults["--enable-custom-logit-processor" if on_cpu else "--enable-deterministic-inference"] = None
    given = {flag.partition("=")[0] for flag in plan.flags}
    arguments = ["--model-path", plan.target]
    for flag, value in defaults.items():
        if flag not in given:
            arguments += [flag] if value is None else [flag, value]
    return [*arguments, *plan.flags]


def _greeting(engine: Any, on_cpu: bool) -> dict[str, Any]:
    info = engine.get_server_info()
    return {
        "context": engine.tokenizer_manager.context_len,
        "prompt": info.get("max_req_input_len"),
        "is_seeded_by_processor": on_cpu,
    }


async def _serve(engine: Any, requests: BinaryIO, replies: Any, on_cpu: bool) -> None:
    """Answer until the parent closes its end; as many at once as it sends."""
    loop = asyncio.get_running_loop()
    lines: asyncio.Queue[bytes] = asyncio.Queue()
    threading.Thread(target=_read, args=(requests, loop, lines), daemon=True).start()
    running: set[asyncio.Task[None]] = set()
    while line := await lines.get():
        task = asyncio.create_task(_answer(engine, json.loads(line), replies, on_cpu))
        running.add(task)
        task.add_done_callback(running.discard)


def _read(requests: BinaryIO, loop: asyncio.AbstractEventLoop, lines: asyncio.Queue[bytes]) -> None:
    for line in requests:
        loop.call_soon_threadsafe(lines.put_nowait, line)
    loop.call_soon_threadsafe(lines.put_nowait, b"")


async def _answer(engine: Any, request: dict[str, Any], replies: Any, on_cpu: bool) -> None:
    number = request["number"]
    try:
        answer = await engine.async_generate(
            input_ids=request["input_ids"],
            sampling_params=request["params"],
            custom_logit_processor=_processor(request["params"], on_cpu),
        )
        kept = {"text": answer["text"], "output_ids": answer["output_ids"]}
        kept["meta_info"] = {"finish_reason": answer["meta_info"]["finish_reason"]}
        _send(replies, {"number": number, "answer": kept})
    except ValueError as error:  # how SGLang refuses a request
        _send(replies, {"number": number, "refused": str(error)})
    except Exception as error:
        _send(replies, {"number": number, "failed": f"{type(error).__name__}: {error}"})


def _processor(params: dict[str, Any], on_cpu: bool) -> str | None:
    if not (on_cpu and params.get("custom_params")):
        return None
    from sglang_hetero_spec.build.regenerate.seeded import serialized

    return serialized()


def _send(replies: Any, message: dict[str, Any]) -> None:
    rest = memoryview(json.dumps(message).encode() + b"\n")
    while rest:
        rest = rest[replies.write(rest) :]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
