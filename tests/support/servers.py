"""Real SGLang servers on this machine, one process each, and a client that says what it wants in one line."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import requests

from sglang_hetero_spec.serving.ports import HOST, free_ports
from tests.support import reaper

# A start is half a minute of one core, most of it imports, and as many times that as there are others on the core.
START_SECONDS = 600
# One that hangs is given up much sooner: when for so long it has used less than a second of a core.
HANGS_SECONDS = 100
TAKEN = "address already in use"
SERVE = (sys.executable, "-m", "sglang_hetero_spec.cli", "serve")
LAUNCH = (sys.executable, "-m", "sglang.launch_server")

# One thread and no busy waiting: tests run several servers on two cores.
QUIET_ARGS = ("--sleep-on-idle", "--log-level", "warning", "--watchdog-timeout", "600", "--mem-fraction-static", "0.2")


@dataclass(frozen=True)
class Server:
    url: str
    process: subprocess.Popen
    log: Path

    def generate(self, prompt: str | list[int], *, timeout: float = 300, **fields: Any) -> dict:
        """One /generate request; fields beside the prompt as in SGLang's native API. Raises on an HTTP error."""
        response = self.post("/generate", _payload(prompt, fields), timeout=timeout)
        response.raise_for_status()
        return response.json()

    def generate_all(
        self, prompts: list, *, concurrency: int = 16, each: list[dict] | None = None, **fields: Any
    ) -> list:
        """One answer per prompt, in order; `each` adds fields of its own to each request."""
        extra = each or [{}] * len(prompts)
        with ThreadPoolExecutor(concurrency) as threads:
            jobs = [threads.submit(self.generate, p, **{**fields, **e}) for p, e in zip(prompts, extra, strict=True)]
            return [job.result() for job in jobs]

    def post(self, path: str, payload: Any, *, timeout: float = 300, **kwargs: Any) -> requests.Response:
        return requests.post(self.url + path, json=payload, timeout=timeout, **kwargs)

    def get(self, path: str) -> requests.Response:
        return requests.get(self.url + path, timeout=60)

    def stream(self, path: str, payload: dict, *, timeout: float = 300) -> Iterator[dict]:
        """The events of a streamed answer. Closing the iterator before its end disconnects the client."""
        with self.post(path, {**payload, "stream": True}, timeout=timeout, stream=True) as response:
            response.raise_for_status()
            for line in response.iter_lines():
                if line.startswith(b"data: ") and line != b"data: [DONE]":
                    yield json.loads(line[len(b"data: ") :])

    def load(self) -> dict:
        """Running and waiting requests and used KV slots, as the scheduler counts them now."""
        return self.get("/v1/loads").json()["loads"][0]

    def flush_cache(self) -> None:
        """Forget all cached prefixes. Raises unless the server is idle."""
        self.post("/flush_cache", None).raise_for_status()

    def answers(self) -> bool:
        """Whether it is healthy by now."""
        try:
            return requests.get(self.url + "/health", timeout=10).status_code == 200
        except requests.RequestException:
            return False

    def is_alive(self) -> bool:
        return self.process.poll() is None and self.get("/health").status_code == 200


def _payload(prompt: str | list[int], fields: dict) -> dict:
    key = "text" if isinstance(prompt, str) else "input_ids"
    return {key: prompt, **fields}


class PortTaken(RuntimeError):
    pass


@contextmanager
def running_server(
    model: Path, log: Path, *args: str, env: dict[str, str] | None = None, command: tuple[str, ...] = SERVE
) -> Iterator[Server]:
    """A server on a free port, up and healthy; stopped with all its children at the end.

    Started once more, on another port, where the first one was taken by the time that the server listened.
    """
    command = (*command, "--model-path", str(model), "--host", HOST, *QUIET_ARGS, *args)
    environ = {"OMP_NUM_THREADS": "1", **os.environ, **(env or {})}
    try:
        server = _started(command, log, environ)
    except PortTaken:
        server = _started(command, log, environ)
    try:
        yield server
    finally:
        _stop(server.process)


def _started(command: tuple[str, ...], log: Path, environ: dict[str, str]) -> Server:
    """PortTaken or RuntimeError if it does not become healthy; then it is stopped."""
    (port,) = free_ports(1)
    with log.open("w") as output:
        process = subprocess.Popen(
            (*command, "--port", str(port)),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=environ,
        )
    reaper.watch(process.pid)
    server = Server(f"http://{HOST}:{port}", process, log)
    try:
        _wait_until_healthy(server)
    except BaseException:
        _stop(process)
        raise
    return server


def _wait_until_healthy(server: Server) -> None:
    """A server whose port is taken may stay, without listening; another one may answer in its place."""
    start = worked_at = time.monotonic()
    worked = 0.0
    while time.monotonic() - start < START_SECONDS and time.monotonic() - worked_at < HANGS_SECONDS:
        has_ended = server.process.poll() is not None
        said = server.log.read_text(errors="replace")
        if TAKEN in said.lower():
            raise PortTaken(f"Somebody else has the server's port:\n{said[-4000:]}")
        if has_ended:
            raise RuntimeError(f"The server ended while starting:\n{said[-4000:]}")
        if server.answers():
            return
        if (now := _core_seconds(server.process.pid)) > worked + 1:
            worked, worked_at = now, time.monotonic()
        time.sleep(0.5)
    raise RuntimeError(f"The server is not healthy after {time.monotonic() - start:.0f} s:\n{said[-4000:]}")


def _core_seconds(pid: int) -> float:
    """Of a process and its children so far."""
    found = 0.0
    with contextlib.suppress(psutil.Error):
        parent = psutil.Process(pid)
        for process in (parent, *parent.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                found += times.user + times.system
    return found


def _stop(process: subprocess.Popen) -> None:
    """At once: asked to end, SGLang takes five seconds and more, some twenty times in a run of all tests."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    reaper.forget(process.pid)
