"""The terms that tell a task from the others, and the id and name made of them."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, CountVectorizer

from sglang_hetero_spec.build.partition.features import words

NUM_TERMS = 10
_ID_TERMS = 3
_ID_CHARS = 64
_WORD_OF_ID = re.compile(r"[a-z0-9]+")


def top_terms(texts: Sequence[str], labels: np.ndarray, n_tasks: int) -> list[list[str]]:
    """The words of each task that are most its own, best first: common in it, rare in the others."""
    split = [" ".join(word for word in words(text) if _is_term(word)) for text in texts]
    vectorizer = CountVectorizer(token_pattern=r"\S+", lowercase=False, binary=True)
    try:
        counts = vectorizer.fit_transform(split)
    except ValueError:  # no word at all
        return [[] for _ in range(n_tasks)]
    sizes = np.array([max((labels == task).sum(), 1) for task in range(n_tasks)])
    share = np.stack([np.asarray(counts[labels == task].sum(axis=0))[0] for task in range(n_tasks)]) / sizes[:, None]
    elsewhere = (share.sum(axis=0) - share) / max(n_tasks - 1, 1)
    score = share * np.log((share + 0.01) / (elsewhere + 0.01)) if n_tasks > 1 else share
    names = vectorizer.get_feature_names_out()
    found = []
    for task in range(n_tasks):
        order = np.lexsort((names, -score[task]))[:NUM_TERMS]
        found.append([str(names[column]) for column in order if score[task, column] > 0])
    return found


def task_ids(terms: Sequence[Sequence[str]]) -> list[str]:
    """An id for each task: its first terms joined by dashes, different from all others, fit for pool.json."""
    ids: list[str] = []
    for number, own in enumerate(terms, start=1):
        usable = [term for term in own if _WORD_OF_ID.fullmatch(term) and term[0].isalpha()][:_ID_TERMS]
        base = "-".join(usable)[: _ID_CHARS - 4].rstrip("-") or f"task-{number}"
        taken = base
        again = 2
        while taken in ids:
            taken, again = f"{base}-{again}", again + 1
        ids.append(taken)
    return ids


def task_name(terms: Sequence[str], task_id: str) -> str:
    """What a reader sees: the first terms, or the id where there are none."""
    return ", ".join(terms[:_ID_TERMS]) or task_id


def _is_term(word: str) -> bool:
    return word not in ENGLISH_STOP_WORDS and not word.isdigit() and (len(word) > 1 or not word.isascii())
