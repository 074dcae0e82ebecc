"""A page in headless Chromium, spoken to with the Chrome DevTools Protocol: what its terminal shows, keys, requests."""

import asyncio
import contextlib
import itertools
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_CODES = {"Enter": 13, "ArrowDown": 40}  # of keys that have a name, as browsers number them
_STARTING = 60.0  # seconds in which a browser must have begun to listen
_HOPELESS = 300.0  # seconds after which words that are waited for will not come
_OPTIONS = (
    "--headless=new",
    "--no-sandbox",  # which it refuses to do without where the tests are run by root; it only sees our own page
    "--no-first-run",
    "--disable-background-networking",
    "--disable-dev-shm-usage",
    "--remote-debugging-port=0",
    "--window-size=1280,800",
)
# The terminal of the page is xterm.js inside a closure; it is kept when the page stores it as `terminal` somewhere.
_KEEP_TERMINAL = """
Object.defineProperty(Object.prototype, "terminal", {
  configurable: true,
  set(value) {
    Object.defineProperty(this, "terminal", { value, writable: true, configurable: true });
    if (value && value.buffer) window.shownTerminal = value;
  },
});
"""
_LINES = """(() => {
  const buffer = window.shownTerminal?.buffer.active;
  if (!buffer) return [];
  return Array.from({ length: window.shownTerminal.rows }, (_, y) => buffer.getLine(y).translateToString(true));
})()"""
_COLOURS = """(async () => {
  const picture = new Image();
  picture.src = "data:image/png;base64,%s";
  await picture.decode();
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [picture.width, picture.height];
  const context = canvas.getContext("2d");
  context.drawImage(picture, 0, 0);
  return new Set(new Uint32Array(context.getImageData(0, 0, canvas.width, canvas.height).data.buffer)).size;
})()"""


def found() -> str | None:
    """Where Chromium is on this machine, or a browser made from it; None if there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Page:
    """A page. requested : the addresses of everything that it has asked for."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.requested: list[str] = []
        self._socket = socket
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._listening = asyncio.ensure_future(self._listen())

    async def _listen(self) -> None:
        async for message in self._socket:
            said = message.json()
            if said.get("method") == "Network.requestWillBeSent":
                self.requested.append(said["params"]["request"]["url"])
            elif said.get("method") == "Network.webSocketCreated":
                self.requested.append(said["params"]["url"])
            elif (answer := self._answers.pop(said.get("id"), None)) is not None:
                answer.set_result(said)

    async def ask(self, method: str, **parameters: object) -> dict[str, Any]:
        """Ask the browser for something; returns its answer."""
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        said = await asyncio.wait_for(answer, _HOPELESS)
        assert "error" not in said, f"{method}: {said['error']}"
        return said["result"]

    async def value(self, expression: str) -> Any:
        """What a JavaScript expression comes to in the page."""
        said = await self.ask("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in said, said["exceptionDetails"]
        return said["result"].get("value")

    async def go(self, address: str) -> None:
        """Open an address."""
        await self.ask("Network.enable")
        await self.ask("Page.enable")
        await self.ask("Page.addScriptToEvaluateOnNewDocument", source=_KEEP_TERMINAL)
        await self.ask("Page.navigate", url=address)

    async def lines(self) -> list[str]:
        """What the terminal of the page shows."""
        return await self.value(_LINES)

    async def shows(self, words: str) -> list[str]:
        """Wait until the terminal shows some words; returns what it shows."""
        end = asyncio.get_running_loop().time() + _HOPELESS
        while words not in (text := "\n".join(await self.lines())):
            assert asyncio.get_running_loop().time() < end, f"{words!r} never came; the page shows\n{text}"
            await asyncio.sleep(0.1)
        return text.split("\n")

    async def press(self, key: str, text: str = "") -> None:
        """Press a key of the browser's keyboard. text : what it types, if it types something."""
        common = {"key": key, "windowsVirtualKeyCode": _CODES.get(key) or ord(key.upper())}
        await self.ask("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", text=text, **common)
        await self.ask("Input.dispatchKeyEvent", type="keyUp", **common)

    async def colours(self) -> int:
        """How many colours the page has as it is painted."""
        picture = await self.ask("Page.captureScreenshot", format="png")
        return await self.value(_COLOURS % picture["data"])

    def leave(self) -> None:
        """Hear nothing more."""
        self._listening.cancel()


@contextlib.asynccontextmanager
async def opened(program: str, folder: Path) -> AsyncIterator[Page]:
    """Start a browser that keeps everything in a folder; gives its page."""
    command = [program, *_OPTIONS, f"--user-data-dir={folder}", "about:blank"]
    nothing = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(*command, stdout=nothing, stderr=nothing)
    try:
        port = await _port(folder / "DevToolsActivePort", process)
        async with aiohttp.ClientSession() as devtools:
            async with devtools.get(f"http://127.0.0.1:{port}/json/list") as targets:
                target = next(each for each in await targets.json() if each["type"] == "page")
            async with devtools.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                page = Page(socket)
                try:
                    yield page
                finally:
                    page.leave()
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _port(path: Path, process: asyncio.subprocess.Process) -> int:
    """The port that the browser listens on, once it has written it down."""
    end = asyncio.get_running_loop().time() + _STARTING
    while not (path.exists() and path.read_text().count("\n")):
        assert process.returncode is None, f"the browser ended at once with {process.returncode}"
        assert asyncio.get_running_loop().time() < end, "the browser does not listen"
        await asyncio.sleep(0.05)
    return int(path.read_text().split("\n")[0])
