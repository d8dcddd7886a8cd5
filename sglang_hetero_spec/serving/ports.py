"""Ports for servers that we start, where nothing else will be by the time that they listen."""

from __future__ import annotations

import contextlib
import random
import socket

from sglang_hetero_spec.serving.errors import ServingError

HOST = "127.0.0.1"

# Below the ports that Linux gives to outgoing connections (32768 and up). A server listens half a minute after its
# port was found free; out of that range, a client's connection would sometimes sit on it by then.
PORTS = range(15_000, 32_000)
TRIES = 1_000


def free_ports(number: int) -> list[int]:
    """Ports that nothing listens on, all different. Raises ServingError where there are none."""
    with contextlib.ExitStack() as stack:
        found: list[int] = []
        for port in random.sample(PORTS, TRIES):
            if len(found) == number:
                return found
            with contextlib.suppress(OSError):
                stack.enter_context(socket.socket()).bind((HOST, port))
                found.append(port)
    raise ServingError(f"No {number} free ports on {HOST}; close some network programs and try again.")
