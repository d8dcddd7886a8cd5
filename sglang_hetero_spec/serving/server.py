"""SGLang servers in processes of their own, which are gone when the command is, however it ends."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sglang_hetero_spec.serving.errors import ServerEnded, ServingError
from sglang_hetero_spec.serving.ports import HOST, free_ports

START_SECONDS = 600.0
STOP_SECONDS = 10.0
LESS_MEMORY = "close other programs, or lower --mem-fraction-static or --max-total-tokens."
_POLL_SECONDS = 0.25


@dataclass(frozen=True)
class ServerPlan:
    """A server to start: the options of SGLang that make it what it is.

    name: of its log. title: what messages call it. less_memory: what to do where it does not fit, for messages.
    """

    name: str
    options: tuple[str, ...]
    environ: dict[str, str] = field(default_factory=dict)
    title: str = ""
    less_memory: str = LESS_MEMORY


@dataclass(frozen=True)
class Server:
    name: str
    port: int
    process: subprocess.Popen[bytes]
    log: Path
    title: str = ""
    less_memory: str = LESS_MEMORY
    host: str = HOST

    def why_it_ended(self) -> ServerEnded | None:
        """None while its process lives."""
        code = self.process.poll()
        if code is None:
            return None
        return ServerEnded(why_it_ended(self.title or self.name, code, self.log, self.less_memory), self.log)


@contextlib.contextmanager
def running(
    plans: Sequence[ServerPlan], logs: Path, on_ready: Callable[[str], None] = lambda _: None
) -> Iterator[dict[str, Server]]:
    """Start all of `plans` at once and wait until each answers; stop them, children included, at the end.

    logs: folder for their output. on_ready: called with the name. Raises ServerEnded for a server that gives up,
    ServingError for one that does not come up.
    """
    servers: dict[str, Server] = {}
    try:
        ports = free_ports(2 * len(plans))
        for number, plan in enumerate(plans):
            servers[plan.name] = _start(plan, logs, ports[2 * number], ports[2 * number + 1])
        _wait(servers, on_ready)
        yield servers
    finally:
        stop([server.process for server in servers.values()])


def _start(plan: ServerPlan, logs: Path, port: int, nccl_port: int) -> Server:
    log = logs / f"{plan.name}.log"
    command = [sys.executable, "-m", "sglang_hetero_spec.serving.launch", str(os.getpid()), "serve", *plan.options]
    command += ["--host", HOST, "--port", str(port), "--nccl-port", str(nccl_port)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # A group of its own: Ctrl-C reaches the command alone, which then ends the group as a whole.
            start_new_session=True,
            env={**os.environ, **plan.environ},
        )
    return Server(plan.name, port, process, log, plan.title, plan.less_memory)


def _wait(servers: dict[str, Server], on_ready: Callable[[str], None]) -> None:
    deadline = time.monotonic() + START_SECONDS
    waiting = dict(servers)
    while waiting:
        for server in list(waiting.values()):
            ended = server.why_it_ended()
            if ended is not None:
                raise ended
            if _answers(server.port):
                del waiting[server.name]
                on_ready(server.name)
        if time.monotonic() > deadline:
            late = next(iter(waiting.values()))
            raise ServingError(
                f"SGLang ({late.title or late.name}) did not come up within {START_SECONDS:.0f} s; other"
                " programs may be using this machine's cores, try again when they are done."
            )
        time.sleep(_POLL_SECONDS)


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=30)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def why_it_ended(title: str, code: int, log: Path, less_memory: str = LESS_MEMORY) -> str:
    """One sentence about a server that ended by itself: its own last word, if it left one."""
    text = log.read_text(encoding="utf-8", errors="replace")
    own = re.findall(r"^hetero-spec: (.+)$", text, re.MULTILINE)
    own = [line for line in own if "runs on the CPU engine" not in line]
    if own:
        return f"SGLang ({title}) did not start: {own[-1]}"
    if re.search(r"MemoryError|out of memory|can't allocate memory|Not enough memory", text, re.IGNORECASE):
        return f"SGLang ({title}) ran out of memory; {less_memory}"
    errors = re.findall(r"^(?:\w+\.)*\w*(?:Error|Exception): .+$", text, re.MULTILINE)
    killed = code == -signal.SIGKILL or re.search(r"exit code:? -9", text)
    if killed and not errors:  # with an error, it was SGLang that killed its own processes
        return f"SGLang ({title}) was killed, most likely for want of memory; {less_memory}"
    said = f" ({errors[-1].strip()[:200]})" if errors else ""
    return f"SGLang ({title}) ended with code {code}{said}; `hetero-spec doctor` checks the installation."


def stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """End each process and its group: asked first, then killed. A second Ctrl-C does not interrupt this."""
    before = _ignore_interrupts()
    try:
        for process in processes:
            _signal_group(process, signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        for process in processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=max(0.1, deadline - time.monotonic()))
            # The group outlives its leader where a child is still busy.
            _signal_group(process, signal.SIGKILL)
            process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ignore_interrupts() -> dict[signal.Signals, object]:
    try:
        return {s: signal.signal(s, signal.SIG_IGN) for s in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: signals go elsewhere
        return {}


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
