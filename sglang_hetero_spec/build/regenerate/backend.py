"""What answers: an engine in a child process, or running servers. One request is one prompt, as token ids."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol


@dataclass(frozen=True)
class Limits:
    """What the running target takes, in tokens: prompt and answer together, and the prompt alone. None: unknown."""

    context: int | None
    prompt: int | None

    def why_too_long(self, num_tokens: int) -> str | None:
        """Why a prompt of so many tokens cannot be answered."""
        bounds = [bound for bound in (self.prompt, self.context) if bound is not None]
        if bounds and num_tokens >= min(bounds):
            return f"the prompt has {num_tokens} tokens, the target takes fewer than {min(bounds)}"
        return None

    def room(self, num_tokens: int, wanted: int) -> int:
        """New tokens that fit after a prompt of so many tokens, `wanted` at most."""
        return wanted if self.context is None else min(wanted, self.context - num_tokens)


@dataclass(frozen=True)
class Request:
    """`number` comes back with the reply. `params` are SGLang's sampling parameters."""

    number: int
    input_ids: tuple[int, ...]
    params: dict[str, Any]


@dataclass(frozen=True)
class Reply:
    number: int
    output_ids: tuple[int, ...]
    text: str
    finish_reason: str


@dataclass(frozen=True)
class Refused:
    """A prompt that was not answered. is_final: asking again would not help."""

    number: int
    reason: str
    is_final: bool = True


class Backend(Protocol):
    """A context manager: entered, it is ready to answer."""

    @property
    def limits(self) -> Limits: ...

    @property
    def notes(self) -> Sequence[str]:
        """What the user should know before the first answer."""
        ...

    @property
    def is_seeded(self) -> bool:
        """Whether a seed decides what is sampled."""
        ...

    @property
    def is_seeded_by_processor(self) -> bool:
        """Whether it does so by `seeded.SeededSampler`, not by SGLang's sampling_seed."""
        ...

    def tokens_of(self, text: str) -> list[tuple[str, tuple[int, ...]]]:
        """What each server, by its name, makes of `text`; those that cannot say are left out."""
        ...

    def answers(self, requests: Sequence[Request]) -> Iterator[Reply | Refused]:
        """One outcome for each request, as they come. RegenerateStopped when no more can come."""
        ...

    def __enter__(self) -> Backend: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None: ...


def outcome(number: int, answer: dict[str, Any]) -> Reply | str:
    """SGLang's answer to one request as a Reply, or why it is none (cut off, or not in SGLang's form)."""
    try:
        reason = answer["meta_info"]["finish_reason"]
        if reason["type"] == "abort":
            return f"cut off by the server ({str(reason.get('message') or 'no reason given')[:200]})"
        text = answer["text"].encode("utf-8", "replace").decode()
        return Reply(number, tuple(int(token) for token in answer["output_ids"]), text, str(reason["type"]))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        return f"not an answer in SGLang's form ({type(error).__name__}: {error})"
