"""`hetero-spec`, but it ends with the process that started it, however that one ended.

python -m sglang_hetero_spec.serving.launch PARENT COMMAND OPTIONS...
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

from sglang_hetero_spec import cli

PR_SET_PDEATHSIG = 1  # linux/prctl.h; the setting survives exec, by which `serve` becomes SGLang


def main(argv: list[str]) -> int:
    parent, arguments = int(argv[0]), argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it ended before the line above
        return 1
    return cli.main(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
