"""What the processes of a server hold: memory, requests, slots."""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.support.servers import Server

PROBE = Path(__file__).with_name("probe")
MIB = 2**20


@dataclass(frozen=True)
class Inspector:
    """Asks a server that was started with `environment(folder)`."""

    server: Server
    folder: Path

    def processes(self) -> dict[str, psutil.Process]:
        """tokenizer (the HTTP server), scheduler, detokenizer."""
        main = psutil.Process(self.server.process.pid)
        named = {"tokenizer": main}
        for child in main.children(recursive=True):
            for name in ("scheduler", "detokenizer"):
                if f"sglang::{name}" in " ".join(child.cmdline()):
                    named[name] = child
        return named

    def memory(self) -> dict[str, float]:
        """Resident memory of each process, in MiB."""
        return {name: process.memory_info().rss / MIB for name, process in self.processes().items()}

    def holdings(self, name: str, seconds: float = 60) -> dict:
        """The report of one process (probe/sitecustomize.py)."""
        pid = self.processes()[name].pid
        path = self.folder / f"{pid}.json"
        path.unlink(missing_ok=True)
        os.kill(pid, signal.SIGUSR2)
        deadline = time.monotonic() + seconds
        while not path.exists():
            if time.monotonic() > deadline:
                raise TimeoutError(f"The {name} process {pid} did not report within {seconds} s.")
            time.sleep(0.1)
        return json.loads(path.read_text())


def environment(folder: Path) -> dict[str, str]:
    path = os.pathsep.join(filter(None, (str(PROBE), os.environ.get("PYTHONPATH"))))
    return {"PYTHONPATH": path, "HETERO_PROBE": str(folder)}
