"""`hetero-spec`, but it ends with the process that started it, however that one ended, and all that it started with it.

python -m sglang_hetero_spec.serving.launch PARENT COMMAND OPTIONS...
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time

from sglang_hetero_spec import cli

PR_SET_PDEATHSIG = 1  # linux/prctl.h; the setting survives exec, by which `serve` becomes SGLang
_POLL_SECONDS = 0.5


def main(argv: list[str]) -> int:
    parent, arguments = int(argv[0]), argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it ended before the line above
        return 1
    _guard_group()
    return cli.main(arguments)


def _guard_group() -> None:
    """End what is left of this process's group when it is gone. SGLang's own processes end with their parent too, but
    only from where they have imported all that they need: half a minute in which they would outlive it for good."""
    leader = os.getpid()
    if os.getpgrp() != leader or os.fork():
        return
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while os.getppid() == leader:
        time.sleep(_POLL_SECONDS)
    os.killpg(leader, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
