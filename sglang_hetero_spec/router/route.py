"""Which drafter serves a request: what the request asks for, else what the router says, else the fallback."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from sglang_hetero_spec.pool import Pool
from sglang_hetero_spec.pool.running import heirs, is_gone
from sglang_hetero_spec.router.errors import OverrideError, RouterError
from sglang_hetero_spec.router.excerpt import Excerpt
from sglang_hetero_spec.router.override import excerpt_of, handed_over, is_excerpt, read_override
from sglang_hetero_spec.router.predict import LinearRouter, Prediction
from sglang_hetero_spec.router.tag import Route, Source

__all__ = ["OverrideError", "RequestRouter", "Route", "Source"]

logger = logging.getLogger(__name__)

# What tokenizers raise for ids that they do not have; SGLang refuses or serves such a request by its own rules.
_UNDECODABLE = (TypeError, ValueError, LookupError, OverflowError)


class RequestRouter:
    """Routes the requests of one pool. Has no state between calls, so one object serves all threads."""

    def __init__(self, pool: Pool, decode: Callable[[list[int]], str] | None = None) -> None:
        """`decode` turns token ids into text, and is only ever given a few hundred; without it a request that
        has only ids goes to the fallback. RouterError if the pool's router is not right."""
        self._decode = decode
        self._router = None if pool.router is None else self._load(pool)
        self._min_confidence = 0.0 if pool.router is None else pool.router.min_confidence
        second_below = None if pool.router is None else pool.router.second_below
        self._second_below = 0.0 if second_below is None else second_below
        self.renew(pool)

    def renew(self, pool: Pool) -> None:
        """Route to the drafters of `pool`, the same one with adapters that came or went."""
        self._drafter_of_task = {task.id: task.drafter for task in pool.tasks}
        self._second_of_task = {task.id: task.second_drafter for task in pool.tasks if task.second_drafter is not None}
        self._drafters = frozenset(drafter.name for drafter in pool.drafters if not is_gone(drafter))
        self._idle = frozenset(drafter.name for drafter in pool.drafters if drafter.kind == "none")
        self._model_of = {drafter.name: drafter.base or drafter.name for drafter in pool.drafters}
        self._has_pairs = pool.merged_draft_tokens is not None
        self._heirs = heirs(pool)
        self._fallback = pool.fallback_drafter

    @property
    def router(self) -> LinearRouter | None:
        """The classifier, if the pool has one."""
        return self._router

    def route(self, text: str | None, input_ids: Sequence[int] | None, override: object | None) -> Route:
        """The route of one request; `override` is its `custom_params["hetero"]`.

        `text` is read where there is one, else the ends of `input_ids`. A request with neither (embeddings), or
        of nothing but blanks, goes to the fallback. OverrideError if the override cannot be followed. With
        `{"read_from": n}` the classifier reads the text from there on.
        """
        if is_excerpt(override):
            text = excerpt_of(override, text)
        elif override is not None:
            return read_override(
                handed_over(override, self._heirs),
                self._drafter_of_task,
                self._drafters,
                self._second_of_task,
                self._idle,
                self._model_of,
                self._has_pairs,
            )
        prediction = self.predict(text, input_ids)
        if prediction is None:
            return Route(None, self._fallback, None, "fallback")
        task, confidence, _ = prediction
        drafter = self._drafter_of_task[task]
        shown = int(confidence * 1e4 + 0.5) / 1e4  # `round` goes through text
        if confidence < self._min_confidence:
            second = self._beside(self._fallback, drafter) if confidence < self._second_below else None
            return Route(task, self._fallback, shown, "fallback", second)
        second = self._second_of_task.get(task)
        if confidence < self._second_below and second is None:
            second = self._beside(drafter, self._drafter_of_next(prediction))
        return Route(task, drafter, shown, "router", second)

    def _drafter_of_next(self, prediction: Prediction) -> str:
        """Of the task that is the most probable after the first one."""
        assert self._router is not None
        scores = prediction.scores
        first, *others = sorted(range(len(scores)), key=lambda number: -scores[number])[:2]
        return self._drafter_of_task[self._router.classes[others[0] if others else first]]

    def _beside(self, first: str, second: str) -> str | None:
        """The second drafter, where two of them can draft together."""
        is_one = self._model_of[first] == self._model_of[second]
        return None if is_one or not self._idle.isdisjoint((first, second)) else second

    def predict(self, text: str | None, input_ids: Sequence[int] | None) -> Prediction | None:
        """What the classifier says of a prompt; None without a classifier or anything to read."""
        router = self._router
        if router is None:
            return None
        excerpt = router.hasher.excerpt(text) if isinstance(text, str) else self._excerpt_of_ids(router, input_ids)
        if excerpt is None or excerpt.is_blank:
            return None
        return router.predict_excerpt(excerpt)

    def _excerpt_of_ids(self, router: LinearRouter, input_ids: Sequence[int] | None) -> Excerpt | None:
        if input_ids is None or self._decode is None or len(input_ids) == 0:
            return None
        try:
            return router.hasher.excerpt_of_ids(input_ids, self._decode)
        except _UNDECODABLE as error:
            logger.debug("HETERO: ids that cannot be decoded go to the fallback drafter (%s)", error)
            return None

    def _load(self, pool: Pool) -> LinearRouter:
        assert pool.router is not None
        router = LinearRouter.load(pool.router.path)
        unknown = sorted(set(router.classes) - {task.id for task in pool.tasks})
        if unknown:
            raise RouterError(
                f"{pool.router.path}: the router knows the task `{unknown[0]}`, which pool.json does not list;"
                " fit the router again, or add the task."
            )
        return router
