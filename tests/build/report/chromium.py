"""A page opened in headless Chromium over the DevTools protocol: what it logs, asks for, measures and looks like."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "chrome-headless-shell")
_START_SECONDS = 60.0


def find_browser() -> str | None:
    return next((path for name in NAMES if (path := shutil.which(name))), None)


@dataclass
class Opened:
    """What happened while the page was open. `messages`: console, exceptions, and the browser's own complaints."""

    requests: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict)
    picture: bytes = b""


def open_page(
    url: str,
    *,
    width: int = 1280,
    scheme: str = "light",
    media: str = "screen",
    ask: dict[str, str] | None = None,
    picture: bool = False,
    clip: tuple[int, int] | None = None,
) -> Opened:
    """Open `url`; `ask` names JavaScript expressions to evaluate in it; clip: from and to which pixel downwards."""
    return asyncio.run(_open(url, width, scheme, media, ask or {}, picture, clip))


async def _open(
    url: str, width: int, scheme: str, media: str, ask: dict[str, str], picture: bool, clip: tuple[int, int] | None
) -> Opened:
    opened = Opened()
    async with _browser() as port, aiohttp.ClientSession() as http:
        async with http.put(f"http://127.0.0.1:{port}/json/new?about:blank") as answer:
            target = (await answer.json(content_type=None))["webSocketDebuggerUrl"]
        async with http.ws_connect(target, max_msg_size=1 << 28) as socket:
            page = _Page(socket, opened)
            for domain in ("Page", "Network", "Runtime", "Log"):
                await page.call(f"{domain}.enable")
            size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
            await page.call("Emulation.setDeviceMetricsOverride", **size)
            features = [{"name": "prefers-color-scheme", "value": scheme}]
            await page.call("Emulation.setEmulatedMedia", media=media, features=features)
            await page.call("Page.navigate", url=url)
            await page.until("Page.loadEventFired")
            await asyncio.sleep(0.5)
            for name, expression in ask.items():
                found = await page.call("Runtime.evaluate", expression=expression, returnByValue=True)
                opened.values[name] = found["result"].get("value")
            if picture:
                opened.picture = await page.picture(width, clip)
    return opened


class _Page:
    def __init__(self, socket: aiohttp.ClientWebSocketResponse, opened: Opened) -> None:
        self._socket, self._opened, self._number = socket, opened, 0
        self._seen: set[str] = set()

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        await self._socket.send_json({"id": self._number, "method": method, "params": params})
        while True:
            message = await self._next()
            if message.get("id") == self._number:
                assert "error" not in message, f"{method}: {message['error']}"
                return message["result"]

    async def until(self, event: str) -> None:
        while event not in self._seen:
            await self._next()

    async def picture(self, width: int, clip: tuple[int, int] | None) -> bytes:
        metrics = await self.call("Page.getLayoutMetrics")
        top, bottom = clip or (0, metrics["cssContentSize"]["height"])
        area = {"x": 0, "y": top, "width": width, "height": bottom - top, "scale": 1}
        shot = await self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=area)
        return base64.b64decode(shot["data"])

    async def _next(self) -> dict[str, Any]:
        message: dict[str, Any] = await self._socket.receive_json(timeout=_START_SECONDS)
        method, params = message.get("method", ""), message.get("params", {})
        self._seen.add(method)
        if method == "Network.requestWillBeSent":
            self._opened.requests.append(params["request"]["url"])
        elif method == "Runtime.consoleAPICalled":
            self._opened.messages.append(f"console.{params['type']}: {params['args']}")
        elif method == "Runtime.exceptionThrown":
            self._opened.messages.append(f"exception: {params['exceptionDetails']['text']}")
        elif method == "Log.entryAdded":
            self._opened.messages.append(f"{params['entry']['level']}: {params['entry']['text']}")
        return message


@contextlib.asynccontextmanager
async def _browser() -> AsyncIterator[int]:
    """A browser of its own, ended with all that it started; gives its DevTools port."""
    browser = find_browser()
    assert browser is not None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [
                browser,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--no-first-run",
                "--remote-debugging-port=0",
                f"--user-data-dir={profile}",
                "about:blank",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            yield await _port(Path(profile) / "DevToolsActivePort", process)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


async def _port(path: Path, process: subprocess.Popen) -> int:
    until = time.monotonic() + _START_SECONDS
    while time.monotonic() < until:
        assert process.poll() is None, "the browser ended at once"
        if path.is_file() and (text := path.read_text()).count("\n"):
            return int(text.split("\n")[0])
        await asyncio.sleep(0.1)
    raise AssertionError("the browser did not open its DevTools port")
