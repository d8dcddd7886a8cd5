"""Real SGLang servers on this machine, one process each, and a client that says what it wants in one line."""

from __future__ import annotations

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

import requests

from sglang_hetero_spec.serving.ports import HOST, free_ports

START_SECONDS = 600
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

    def is_alive(self) -> bool:
        return self.process.poll() is None and self.get("/health").status_code == 200


def _payload(prompt: str | list[int], fields: dict) -> dict:
    key = "text" if isinstance(prompt, str) else "input_ids"
    return {key: prompt, **fields}


@contextmanager
def running_server(
    model: Path, log: Path, *args: str, env: dict[str, str] | None = None, command: tuple[str, ...] = SERVE
) -> Iterator[Server]:
    """A server on a free port, up and healthy; stopped with all its children at the end."""
    (port,) = free_ports(1)
    command = (*command, "--model-path", str(model))
    command += ("--host", HOST, "--port", str(port), *QUIET_ARGS, *args)
    with log.open("w") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={"OMP_NUM_THREADS": "1", **os.environ, **(env or {})},
        )
    server = Server(f"http://{HOST}:{port}", process, log)
    try:
        _wait_until_healthy(server)
        yield server
    finally:
        _stop(process)


def _wait_until_healthy(server: Server) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            raise RuntimeError(f"The server ended while starting:\n{server.log.read_text()[-4000:]}")
        try:
            if server.get("/health").status_code == 200:
                return
        except requests.RequestException:
            pass
        time.sleep(0.5)
    raise RuntimeError(f"The server is not healthy after {START_SECONDS} s:\n{server.log.read_text()[-4000:]}")


def _stop(process: subprocess.Popen) -> None:
    for sign in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, sign)
        except ProcessLookupError:
            return
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            continue
    process.wait()
