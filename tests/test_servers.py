"""Our servers' starts (support/servers.py), with a program of a few lines in place of SGLang."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.support import servers
from tests.support.servers import PortTaken, running_server

# Its first `taken` starts find the port taken, and stay without listening, as SGLang does.
SERVER = """
import sys, time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

class Healthy(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass

starts, taken = Path(sys.argv[1]), int(sys.argv[2])
port = int(sys.argv[sys.argv.index("--port") + 1])
with starts.open("a") as file:
    file.write(f"{port}\\n")
if len(starts.read_text().split()) <= taken:
    print(f"ERROR: [Errno 98] error while attempting to bind on address ('127.0.0.1', {port}): address already in use")
    sys.stdout.flush()
    time.sleep(600)
if taken >= 0:
    HTTPServer(("127.0.0.1", port), Healthy).serve_forever()
time.sleep(600)
"""


def command(folder: Path, taken: int) -> tuple[str, ...]:
    program = folder / "server.py"
    program.write_text(SERVER)
    return (sys.executable, str(program), str(folder / "starts"), str(taken))


def starts(folder: Path) -> list[str]:
    return (folder / "starts").read_text().split()


def test_a_taken_port_costs_one_more_start(tmp_path: Path) -> None:
    with running_server(tmp_path, tmp_path / "log", command=command(tmp_path, 1)) as server:
        first, second = starts(tmp_path)
        assert first != second and server.url.endswith(f":{second}")
        assert server.is_alive()
    assert server.process.poll() is not None


def test_a_port_that_is_taken_twice_is_an_error(tmp_path: Path) -> None:
    refused = pytest.raises(PortTaken, match="address already in use")
    with refused, running_server(tmp_path, tmp_path / "log", command=command(tmp_path, 9)):
        pass
    assert len(starts(tmp_path)) == 2


@pytest.mark.parametrize("limit", ["HANGS_SECONDS", "START_SECONDS"])
def test_a_server_that_never_listens_is_given_up_and_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setattr(servers, limit, 2)
    stopped = []
    stop = servers._stop
    monkeypatch.setattr(servers, "_stop", lambda process: (stopped.append(process), stop(process)))
    refused = pytest.raises(RuntimeError, match="not healthy after")
    with refused, running_server(tmp_path, tmp_path / "log", command=command(tmp_path, -1)):
        pass
    assert len(starts(tmp_path)) == 1 and [process.poll() is not None for process in stopped] == [True]


def test_a_slow_start_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that works does not hang."""
    core_seconds = itertools.count(step=2)
    monkeypatch.setattr(servers, "HANGS_SECONDS", 2)
    monkeypatch.setattr(servers, "_core_seconds", lambda _: next(core_seconds))
    slow = SERVER.replace("if taken >= 0:", "time.sleep(3)\nif taken >= 0:")
    arguments = command(tmp_path, 0)
    (tmp_path / "server.py").write_text(slow)
    with running_server(tmp_path, tmp_path / "log", command=arguments) as server:
        assert server.is_alive()


STARTS_ONE = """
import sys
from pathlib import Path
from tests.support.servers import running_server

with running_server(Path("."), Path(sys.argv[1]), command=tuple(sys.argv[2:])) as server:
    print(server.process.pid, flush=True)
    sys.stdin.read()
"""


def test_a_killed_worker_leaves_no_server_behind(tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", STARTS_ONE, str(tmp_path / "log"), *command(tmp_path, 0)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(arguments, cwd=Path(__file__).parents[1], text=True, **pipes) as worker:
        assert worker.stdout is not None
        server = psutil.Process(int(worker.stdout.readline()))
        worker.kill()
    server.wait(timeout=30)
