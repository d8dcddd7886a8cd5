"""The page in a real browser: no console error, no request, nothing wider than the screen."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.build.report.chromium import find_browser, open_page

pytestmark = pytest.mark.skipif(find_browser() is None, reason="no Chromium or Chrome on this machine")

ASK = {
    "width": "document.documentElement.scrollWidth",
    "sections": "document.querySelectorAll('section').length",
    "broken": "document.querySelectorAll('parsererror').length",
    "colour": "getComputedStyle(document.body).backgroundColor",
    "outside": "[...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1"
    " && !e.closest('.scroll')).length",
    "shown": "[...document.querySelectorAll('#speed figure svg')].filter(e => e.getBoundingClientRect().width).length",
}


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (400, "light")])
def test_it_opens_from_disk_with_no_error_and_no_request(page: Path, width: int, scheme: str) -> None:
    opened = open_page(page.as_uri(), width=width, scheme=scheme, ask=ASK)
    assert opened.requests == [page.as_uri()]
    assert opened.messages == []
    assert opened.values["sections"] == 8
    assert opened.values["broken"] == 0
    assert opened.values["width"] <= width
    assert opened.values["outside"] == 0
    assert opened.values["shown"] == 1
    assert (opened.values["colour"] == "rgb(20, 23, 27)") == (scheme == "dark")


def test_the_watcher_sees_errors_and_requests(tmp_path: Path) -> None:
    path = tmp_path / "bad.html"
    path.write_text("<script>console.error('no')</script><img src='missing.png'>")
    opened = open_page(path.as_uri())
    assert any("missing.png" in url for url in opened.requests)
    assert any("console.error" in message for message in opened.messages)
