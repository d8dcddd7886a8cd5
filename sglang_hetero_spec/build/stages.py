"""Stages of a build: done once, found again when the command is run again, thrown away when their input changed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sglang_hetero_spec.errors import HeteroError
from sglang_hetero_spec.files import write_lines

KEY, DONE = "stage.key", "stage.done"


@dataclass(frozen=True)
class Stage:
    """One folder. `key` is all that its content depends on: with another key the folder is begun anew."""

    folder: Path
    key: Mapping[str, Any]

    @property
    def _text(self) -> str:
        return json.dumps(self.key, sort_keys=True)

    @property
    def is_done(self) -> bool:
        return _read(self.folder / DONE) == self._text

    def run(self, work: Callable[[Path], None], say: Callable[[str], None]) -> bool:
        """Do `work(folder)` unless it is done; False if it was. What an interrupted run left in the folder stays, for
        `work` to go on from, where it was begun with the same key."""
        if self.is_done:
            return False
        self.folder.mkdir(parents=True, exist_ok=True)
        if any(self.folder.iterdir()) and _read(self.folder / KEY) != self._text:
            say(f"{self.folder.name}: made from other input or settings, begun anew")
            shutil.rmtree(self.folder)
            self.folder.mkdir()
        write_lines(self.folder / KEY, [self._text], HeteroError)
        work(self.folder)
        write_lines(self.folder / DONE, [self._text], HeteroError)
        return True


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").rstrip("\n")
    except OSError:
        return None
