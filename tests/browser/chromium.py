"""A headless Chromium, driven over its DevTools protocol."""

import asyncio
import base64
import itertools
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from tests.eventually import eventually
from tests.servers.parts import require_part
from websockets.asyncio.client import ClientConnection, connect

_START_SECONDS = 60.0
_PATIENCE = 30.0
_OPTIONS = (
    "--headless=new",
    "--remote-debugging-port=0",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--hide-scrollbars",
    "--no-first-run",
    "--no-proxy-server",
)
_KEYS = {"Tab": 9, "Enter": 13, " ": 32}


class Page:
    """One tab.

    Attributes:
        complaints: What the browser wrote to its console as errors: scripts that failed, and
            what the page's content policy refused.
    """

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._session: str | None = None
        self._loaded = asyncio.Event()
        self.complaints: list[str] = []

    async def attach(self) -> None:
        """Make the tab and listen to it."""
        target = await self._command("Target.createTarget", url="about:blank")
        attached = await self._command(
            "Target.attachToTarget", targetId=target["targetId"], flatten=True
        )
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            await self._command(f"{domain}.enable")

    async def listen(self) -> None:
        """Take what the browser says until it ends."""
        async for text in self._connection:
            message = json.loads(text)
            if "id" in message:
                self._answers.pop(message["id"]).set_result(message)
            elif message["method"] == "Page.loadEventFired":
                self._loaded.set()
            elif message["method"] == "Runtime.exceptionThrown":
                self.complaints.append(json.dumps(message["params"]["exceptionDetails"]))
            elif message["method"] == "Log.entryAdded":
                self._note(message["params"]["entry"])

    def _note(self, entry: dict[str, Any]) -> None:
        # A service that stops is meant to fail its requests.
        if entry["level"] == "error" and entry["source"] != "network":
            self.complaints.append(entry["text"])

    async def close(self) -> None:
        """Close the tab."""
        await self._command("Page.close")

    async def go(self, url: str) -> None:
        """Load a page, with its scripts."""
        self._loaded.clear()
        answer = await self._command("Page.navigate", url=url)
        assert "errorText" not in answer, answer
        async with asyncio.timeout(_PATIENCE):
            await self._loaded.wait()

    async def size(self, width: int, height: int = 900, *, dark: bool = False) -> None:
        """Give the window a size in CSS pixels, and the system a light or dark theme."""
        await self._command(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 500,
        )
        theme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self._command("Emulation.setEmulatedMedia", features=[theme])

    async def value(self, expression: str) -> Any:
        """Return what an expression gives, or the promise that it gives holds."""
        answer = await self._command(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in answer, (expression, answer["exceptionDetails"])
        return answer["result"].get("value")

    async def text(self, selector: str) -> str:
        """Return the text of the first element that a selector finds, as it is to be read."""
        found = await self.value(f"document.querySelector({json.dumps(selector)}).innerText")
        return str(found)

    async def until(self, expression: str, seconds: float = _PATIENCE) -> Any:
        """Wait until an expression gives something true, and return it."""
        try:
            async with asyncio.timeout(seconds):
                while not (value := await self.value(expression)):  # noqa: ASYNC110 - no event
                    await asyncio.sleep(0.05)
        except TimeoutError:
            text = await self.value("document.body.innerText")
            raise AssertionError(f"never true: {expression}\n{text}") from None
        return value

    async def press(self, key: str) -> None:
        """Press and release a key."""
        code = _KEYS[key]
        pressed = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        text = {"text": "\r"} if key == "Enter" else {}
        await self._command("Input.dispatchKeyEvent", type="keyDown", **pressed, **text)
        await self._command("Input.dispatchKeyEvent", type="keyUp", **pressed)

    async def move(self, left: float, top: float) -> None:
        """Move the mouse to a point of the window."""
        await self._command("Input.dispatchMouseEvent", type="mouseMoved", x=left, y=top)

    async def sleep(self) -> None:
        """Stop the page's scripts, as when the computer sleeps; no value can be had meanwhile."""
        await self._command("Debugger.enable")
        await self._command("Debugger.pause")

    async def wake(self) -> None:
        """End the sleep."""
        await self._command("Debugger.resume")

    async def picture(self) -> bytes:
        """Return a PNG of the window."""
        answer = await self._command("Page.captureScreenshot", format="png")
        return base64.b64decode(answer["data"])

    async def _command(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        message = {"id": number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        await self._connection.send(json.dumps(message))
        async with asyncio.timeout(_PATIENCE):
            answered = await answer
        assert "error" not in answered, (method, answered)
        result: dict[str, Any] = answered["result"]
        return result


@contextmanager
def chromium() -> Iterator[Path]:
    """Run a browser for a block; gives the directory of its profile, which names its address."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    require_part("Chromium", present=program, remedy="apt-get install chromium")
    profile = Path(tempfile.mkdtemp(prefix="penstock-chromium-"))
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []  # as root it runs without one only
    options = [*_OPTIONS, *sandbox, f"--user-data-dir={profile}", "about:blank"]
    silence = subprocess.DEVNULL
    browser = subprocess.Popen(
        [str(program), *options],
        env={**os.environ, "TMPDIR": str(profile)},  # it leaves directories behind
        stdin=silence,
        stdout=silence,
        stderr=silence,
    )
    try:
        yield profile
    finally:
        browser.terminate()
        browser.wait(_START_SECONDS)
        shutil.rmtree(profile, ignore_errors=True)


@asynccontextmanager
async def new_tab(profile: Path) -> AsyncIterator[Page]:
    """Open a tab in the browser of a profile for a block."""
    await eventually(lambda: _address(profile) is not None, _START_SECONDS)
    async with connect(str(_address(profile)), max_size=None) as connection:
        page = Page(connection)
        listening = asyncio.create_task(page.listen())
        try:
            await page.attach()
            yield page
            await page.close()
        finally:
            listening.cancel()


def _address(profile: Path) -> str | None:
    written = profile / "DevToolsActivePort"
    lines = written.read_text().splitlines() if written.exists() else []
    return f"ws://127.0.0.1:{lines[0]}{lines[1]}" if len(lines) == 2 else None
