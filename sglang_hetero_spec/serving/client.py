"""Sends requests to a server, so many at a time, and keeps what came back."""

from __future__ import annotations

import http.client
import json
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sglang_hetero_spec.serving.errors import ServingError
from sglang_hetero_spec.serving.server import HOST, Server

REQUEST_SECONDS = 600.0


@dataclass(frozen=True)
class Timed:
    """One answer of /generate. number: of the request; seconds: from sending it to the whole answer."""

    number: int
    answer: dict[str, Any]
    seconds: float


def generate_all(
    server: Server, bodies: Sequence[dict[str, Any]], *, concurrency: int, on_answer: Callable[[Timed], None]
) -> tuple[tuple[Timed, ...], float]:
    """Every body to /generate, in order, `concurrency` at a time.

    Returns the answers in the order of the bodies, and the seconds from the first request's start to the last one's
    end. ServingError if a request fails. on_answer runs in this thread, as they come.
    """
    todo: queue.SimpleQueue[int] = queue.SimpleQueue()
    done: queue.SimpleQueue[Timed | Exception] = queue.SimpleQueue()
    for number in range(len(bodies)):
        todo.put(number)

    def work() -> None:
        connection = http.client.HTTPConnection(HOST, server.port, timeout=REQUEST_SECONDS)
        try:
            while True:
                number = todo.get_nowait()
                start = time.perf_counter()
                answer = post(connection, "/generate", bodies[number])
                done.put(Timed(number, answer, time.perf_counter() - start))
        except queue.Empty:
            pass
        except Exception as error:
            done.put(error)
        finally:
            connection.close()

    start = time.perf_counter()
    # Daemons: Ctrl-C need not wait for answers that nobody will read.
    for _ in range(min(concurrency, len(bodies))):
        threading.Thread(target=work, daemon=True).start()
    answers: list[Timed] = []
    while len(answers) < len(bodies):
        answer = done.get()
        if isinstance(answer, Exception):
            raise explain(server, answer) from answer
        answers.append(answer)
        on_answer(answer)
    wall = time.perf_counter() - start
    return tuple(sorted(answers, key=lambda timed: timed.number)), wall


def post(connection: http.client.HTTPConnection, path: str, body: dict[str, Any] | None = None) -> Any:
    """The decoded answer; ServingError with the server's own words for any status but 200."""
    headers = {"Content-Type": "application/json"}
    connection.request("POST", path, None if body is None else json.dumps(body), headers)
    text = _text(connection, path)
    return json.loads(text) if path == "/generate" else text


def get(server: Server, path: str) -> str:
    """What the server says at `path`."""
    connection = http.client.HTTPConnection(HOST, server.port, timeout=REQUEST_SECONDS)
    try:
        connection.request("GET", path)
        return _text(connection, path)
    except (OSError, http.client.HTTPException) as error:
        raise explain(server, error) from error
    finally:
        connection.close()


def _text(connection: http.client.HTTPConnection, path: str) -> str:
    response = connection.getresponse()
    text = response.read().decode("utf-8", errors="replace")
    if response.status != 200:
        raise ServingError(f"SGLang answered {path} with HTTP {response.status} ({text.strip()[:200]}).")
    return text


def flush_cache(server: Server) -> None:
    """Forget all prefixes, so that every pass computes its prompts anew."""
    connection = http.client.HTTPConnection(HOST, server.port, timeout=REQUEST_SECONDS)
    try:
        # A request's slots are released shortly after its answer is sent: SGLang waits that long.
        post(connection, "/flush_cache?timeout=30")
    except (OSError, http.client.HTTPException) as error:
        raise explain(server, error) from error
    finally:
        connection.close()


def explain(server: Server, error: Exception) -> ServingError:
    """One sentence for an exchange that failed; ServerEnded where the server is gone."""
    if isinstance(error, ServingError):
        return error
    time.sleep(1.0)  # a server that is going down takes a moment to be gone
    title = server.title or server.name
    return server.why_it_ended() or ServingError(
        f"SGLang ({title}) broke off an answer ({type(error).__name__}: {error})."
    )
