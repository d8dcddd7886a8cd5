"""Sends requests to a server, so many at a time, and keeps what came back."""

from __future__ import annotations

import http.client
import json
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from sglang_hetero_spec.serving.errors import ServingError
from sglang_hetero_spec.serving.remote import Remote
from sglang_hetero_spec.serving.server import Server

REQUEST_SECONDS = 600.0
Peer = Server | Remote
T = TypeVar("T")


@dataclass(frozen=True)
class Timed:
    """One answer of /generate. number: of the request; seconds: from sending it to the whole answer."""

    number: int
    answer: dict[str, Any]
    seconds: float


def connect(server: Peer, timeout: float = REQUEST_SECONDS) -> http.client.HTTPConnection:
    """A connection that is opened by its first request."""
    if isinstance(server, Remote) and server.secure:
        return http.client.HTTPSConnection(server.host, server.port, timeout=timeout)
    return http.client.HTTPConnection(server.host, server.port, timeout=timeout)


def generate_all(
    server: Peer, bodies: Sequence[dict[str, Any]], *, concurrency: int, on_answer: Callable[[Timed], None]
) -> tuple[tuple[Timed, ...], float]:
    """Every body to /generate, in order, `concurrency` at a time.

    Returns the answers in the order of the bodies, and the seconds from the first request's start to the last one's
    end. ServingError if a request fails. on_answer runs in this thread, as they come.
    """

    def send(connection: http.client.HTTPConnection, number: int) -> Timed:
        start = time.perf_counter()
        answer = post(connection, "/generate", bodies[number])
        return Timed(number, answer, time.perf_counter() - start)

    answers, wall = in_flight(server, len(bodies), send, concurrency=concurrency, on_answer=on_answer)
    return tuple(sorted(answers, key=lambda timed: timed.number)), wall


def in_flight(
    server: Peer,
    total: int,
    send: Callable[[http.client.HTTPConnection, int], T],
    *,
    concurrency: int,
    on_answer: Callable[[T], None],
) -> tuple[list[T], float]:
    """`send` for each number below `total`, in order, `concurrency` at a time, each time in one of so many threads with
    a connection of its own. What it returned, as it came, and the seconds of it all; errors as in `generate_all`."""
    todo: queue.SimpleQueue[int] = queue.SimpleQueue()
    done: queue.SimpleQueue[T | Exception] = queue.SimpleQueue()
    for number in range(total):
        todo.put(number)

    def work() -> None:
        connection = connect(server)
        try:
            while True:
                done.put(send(connection, todo.get_nowait()))
        except queue.Empty:
            pass
        except Exception as error:
            done.put(error)
        finally:
            connection.close()

    start = time.perf_counter()
    # Daemons: Ctrl-C need not wait for answers that nobody will read.
    for _ in range(min(concurrency, total)):
        threading.Thread(target=work, daemon=True).start()
    answers = gather(server, total, done, on_answer)
    return answers, time.perf_counter() - start


def gather(server: Peer, total: int, done: queue.SimpleQueue[T | Exception], on_answer: Callable[[T], None]) -> list[T]:
    """`total` answers that threads put into `done`; the first exception among them is raised, explained."""
    answers: list[T] = []
    while len(answers) < total:
        answer = done.get()
        if isinstance(answer, Exception):
            raise explain(server, answer) from answer
        answers.append(answer)
        on_answer(answer)
    return answers


def post(connection: http.client.HTTPConnection, path: str, body: dict[str, Any] | None = None) -> Any:
    """The decoded answer; ServingError with the server's own words for any status but 200."""
    headers = {"Content-Type": "application/json"}
    connection.request("POST", path, None if body is None else json.dumps(body), headers)
    text = _text(connection, path)
    return json.loads(text) if path == "/generate" else text


def get(server: Peer, path: str) -> str:
    """What the server says at `path`."""
    connection = connect(server)
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


def flush_cache(server: Peer) -> None:
    """Forget all prefixes, so that every pass computes its prompts anew."""
    connection = connect(server)
    try:
        # A request's slots are released shortly after its answer is sent: SGLang waits that long.
        post(connection, "/flush_cache?timeout=30")
    except (OSError, http.client.HTTPException) as error:
        raise explain(server, error) from error
    finally:
        connection.close()


def logit_gap(server: Peer, prompt: dict[str, Any], output_ids: Sequence[int]) -> float:
    """How far apart the target's two best logits are after `prompt` and `output_ids` (as log-probabilities: the
    same difference). The server's prefill computes it, which is the target alone, whatever the server's drafters.

    prompt: `text` or `input_ids` as in a request.
    """
    connection = connect(server)
    ask = {"sampling_params": {"temperature": 0.0, "max_new_tokens": 1}, "return_logprob": True}
    try:
        read = post(connection, "/generate", {**ask, **prompt, "logprob_start_len": 0})
        prompt_ids = [token for _, token, _ in read["meta_info"]["input_token_logprobs"]]
        body = {**ask, "input_ids": [*prompt_ids, *output_ids], "top_logprobs_num": 2}
        best, second = post(connection, "/generate", body)["meta_info"]["output_top_logprobs"][0][:2]
    except (OSError, http.client.HTTPException) as error:
        raise explain(server, error) from error
    finally:
        connection.close()
    return best[0] - second[0]


def explain(server: Peer, error: Exception) -> ServingError:
    """One sentence for an exchange that failed; ServerEnded where the server is gone."""
    if isinstance(error, ServingError):
        return error
    time.sleep(1.0)  # a server that is going down takes a moment to be gone
    title = server.title or server.name
    return server.why_it_ended() or ServingError(
        f"SGLang ({title}) broke off an answer ({type(error).__name__}: {error})."
    )
