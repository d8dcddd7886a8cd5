"""Route: the decision for one request, and the tag by which it travels in `custom_params["hetero"]`."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, get_args

Source = Literal["router", "request", "fallback", "online"]
SOURCES: tuple[str, ...] = get_args(Source)
TAG_KEYS = frozenset({"task", "drafter", "confidence", "source"})
# With it where a request has two drafters.
PAIR_KEY = "drafters"


class Route(NamedTuple):
    """Which drafter serves a request, which other one with it, and who said so.

    `task` and `confidence` are the router's, also where its confidence was too low (`fallback`); None where it
    was not asked.
    """

    task: str | None
    drafter: str
    confidence: float | None
    source: Source
    second: str | None = None

    @property
    def drafters(self) -> tuple[str, ...]:
        return (self.drafter,) if self.second is None else (self.drafter, self.second)

    def to_tag(self) -> dict[str, Any]:
        """A JSON object that `from_tag` reads back."""
        tag: dict[str, Any] = {
            "task": self.task,
            "drafter": self.drafter,
            "confidence": self.confidence,
            "source": self.source,
        }
        if self.second is not None:
            tag[PAIR_KEY] = list(self.drafters)
        return tag

    @classmethod
    def from_tag(cls, tag: object) -> Route:
        """The route in a tag; ValueError names the field that is wrong. Does not know which names exist."""
        if not isinstance(tag, dict) or not is_tag(tag):
            raise ValueError("keys")
        task, drafter, confidence, source = (tag[key] for key in ("task", "drafter", "confidence", "source"))
        if not (task is None or isinstance(task, str)):
            raise ValueError("task")
        if not isinstance(drafter, str):
            raise ValueError("drafter")
        if not (confidence is None or (type(confidence) in (int, float) and 0 <= confidence <= 1)):
            raise ValueError("confidence")
        if not (isinstance(source, str) and source in SOURCES):
            raise ValueError("source")
        return cls(task, drafter, confidence, source, _second(tag))  # type: ignore[arg-type]


def is_tag(value: dict[str, Any]) -> bool:
    return value.keys() - {PAIR_KEY} == TAG_KEYS


def _second(tag: dict[str, Any]) -> str | None:
    if PAIR_KEY not in tag:
        return None
    pair = tag[PAIR_KEY]
    if not (isinstance(pair, list) and len(pair) == 2 and pair[0] == tag["drafter"] and isinstance(pair[1], str)):
        raise ValueError(PAIR_KEY)
    return pair[1]
