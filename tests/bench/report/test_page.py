"""The page: whole, self-contained, and unmoved by what tasks and arms are called."""

from __future__ import annotations

import base64
import importlib
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from sglang_hetero_spec.bench.errors import BenchError
from sglang_hetero_spec.bench.report import plots, render_page
from sglang_hetero_spec.bench.report.style import styles
from sglang_hetero_spec.bench.results.aggregate import aggregate
from sglang_hetero_spec.bench.results.definitions import DEFINITIONS
from sglang_hetero_spec.bench.results.finish import judged, rounded, speed_model
from sglang_hetero_spec.bench.results.run_files import Run, read_run
from sglang_hetero_spec.bench.speed_model import render
from tests.bench.made_up import ARMS, Shape, edit_blocks, edit_requests, write_run

# By its name: the package has a function that is called as this module is.
FINISH = importlib.import_module("sglang_hetero_spec.bench.results.finish")
NASTY = ("<img src=x onerror=alert(1)>", "$x_{$ \\frac", "\u4efb\u52a1 \u05e2\u05d1", "a" * 300 + "\x00\u202e&")
PLOTS = {"speeds", "ratios", "tasks", "drift", "accept_lengths", "by_position", "latencies", "shares"}


def made(folder: Path, shape: Shape) -> tuple[Run, dict[str, Any]]:
    run = read_run(write_run(folder, shape))
    return run, judged(run, rounded(aggregate(run)) | {"speed_model": None}, ["It rained."]).aggregate


@pytest.fixture(scope="module")
def nasty(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of a run with names that would break it."""
    arms = ("none", "standalone", "hetero", "hetero-oracle")
    shape = Shape(arms=arms, settings=("c1",), tasks=NASTY, num_prompts=4)
    return render_page(*made(tmp_path_factory.mktemp("page") / "run", shape))


class Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    return reader


def pictures(page: str) -> list[bytes]:
    return [base64.b64decode(found) for found in re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', page)]


def test_it_loads_nothing_and_runs_nothing(nasty: str) -> None:
    reader = read(nasty)
    assert "script" not in reader.tags and reader.tags.count("img") == len(PLOTS)
    assert not [name for name, _ in reader.attributes if name.startswith("on")]
    urls = [value for name, value in reader.attributes if name in ("src", "href")]
    assert all(url.startswith(("data:", "#")) for url in urls)
    assert "default-src 'none'" in nasty and "url(" not in nasty and "@import" not in nasty
    assert {"\x00", "\u202e"}.isdisjoint(nasty)


def test_names_are_shown_as_they_are(nasty: str) -> None:
    text = " ".join(read(nasty).text)
    assert "<img src=x onerror=alert(1)>" in text and "\u4efb\u52a1 \u05e2\u05d1" in text and "$x_{$ \\frac" in text


def test_every_picture_is_xml_without_a_script_and_holds_the_names(nasty: str) -> None:
    texts = ""
    for picture in pictures(nasty):
        root = ElementTree.fromstring(picture)
        assert not [node for node in root.iter() if node.tag.endswith(("script", "foreignObject"))]
        links = [node.get("{http://www.w3.org/1999/xlink}href") or "#" for node in root.iter()]
        assert all(link.startswith(("#", "data:")) for link in links)
        texts += " ".join(node.text or "" for node in root.iter() if node.tag.endswith("text"))
    assert "<img src=x onerror=alert" in texts and "$x_{$ \\frac" in texts and "\u4efb\u52a1" in texts
    assert "mathdefault" not in texts


def test_every_column_has_its_definition(nasty: str) -> None:
    reader = read(nasty)
    text = " ".join(reader.text)
    titles = " ".join(value for name, value in reader.attributes if name == "title")
    for name in set(DEFINITIONS) - {"prompts", "completion_tokens", "draft_seconds_share"}:
        assert DEFINITIONS[name].meaning in text, name
        assert name == "interval" or DEFINITIONS[name].meaning in titles, name


def test_why_it_may_not_be_cited_stands_on_top(nasty: str) -> None:
    assert nasty.index("It rained.") < nasty.index('<section id="speed">')


def test_the_same_run_gives_the_same_page(tmp_path: Path) -> None:
    run, found = made(tmp_path / "run", Shape(arms=("none", "hetero"), settings=("c1",), num_prompts=3, tokens=8))
    assert render_page(run, found) == render_page(run, found)


def test_each_plot_is_left_out_where_nothing_is_known(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", Shape(arms=("none", "ngram"), settings=("c1",), num_prompts=1, repetitions=1))
    nothing = {"verify_steps": None, "proposed": None, "correct": None, "histogram": None}
    edit_requests(folder, lambda row: type(row)(**(vars(row) | nothing | {"ttft": None, "chunks": []})))
    run = read_run(folder)
    found = judged(run, rounded(aggregate(run)), []).aggregate
    assert set(plots(run, found)) == {"speeds", "ratios", "latencies"}
    edit_blocks(folder, lambda row: None)
    run = read_run(folder)
    assert set(plots(run, judged(run, rounded(aggregate(run)), []).aggregate)) == {"latencies"}


def test_an_arm_looks_the_same_everywhere_and_like_no_other() -> None:
    shown = styles([*ARMS, "eagle3", "other"])
    assert (
        len({style.color for style in shown.values()}) == len({style.marker for style in shown.values()}) == len(shown)
    )
    assert styles(["eagle3", "hetero"])["hetero"] == shown["hetero"]


def test_the_speed_model_has_its_section(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, found = made(tmp_path / "run", Shape(arms=("none", "hetero"), settings=("c1",), num_prompts=2, tokens=8))
    table = render.Table(title="Costs", columns=("part",), rows=(("<b>draft</b>",),), notes=("A & B.",))
    monkeypatch.setattr(render, "tables", lambda value: [table])
    monkeypatch.setattr(FINISH, "section", lambda folder: {"fit": float("inf")})
    assert speed_model(run) == {"fit": None}
    page = render_page(run, found | {"speed_model": speed_model(run)})
    assert "&lt;b&gt;draft&lt;/b&gt;" in page and "A &amp; B." in page

    def refuse(folder: Path) -> None:
        raise BenchError("Too few settings.")

    monkeypatch.setattr(FINISH, "section", refuse)
    assert speed_model(run) == {"why_not": "Too few settings."}
    assert "Too few settings." in render_page(run, found | {"speed_model": speed_model(run)})
