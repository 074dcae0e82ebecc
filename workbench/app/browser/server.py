"""The server: a page with a terminal in it, and behind it the app in a process of its own, one at a time."""

import asyncio
import json
import os
import shlex
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import Any

import textual_serve
from aiohttp import WSMsgType, web
from textual_serve.app_service import AppService
from textual_serve.download_manager import DownloadManager

from kernels.errors import WorkbenchError
from workbench.app.browser.gate import LOOPBACK, Gate
from workbench.machine import interrupts

_PATIENCE = 5.0  # seconds that the app has to save what it shows, before it is ended
_LONGEST = 1 << 20  # bytes of one message: more is no paste
_LARGEST = 1000  # columns or rows of a terminal
_SIZE = {"width": 80, "height": 24}  # of a terminal that does not say


def serve(arguments: Sequence[str], port: int, printed: Callable[[str], object]) -> None:
    """Show `workbench ARGUMENTS` to a browser on this machine until this process is told to end.

    port : 0 for any that is free. printed(address) : tells the user where. WorkbenchError if the port is taken;
    `interrupts.Ended` in the end.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((LOOPBACK, port))
        except OSError as error:
            raise WorkbenchError(
                f"port {port} of this machine cannot be used ({error.strerror}); give another --port, or none"
            ) from None
        number = asyncio.run(_serve(arguments, listening, printed))
    interrupts.unwind()
    raise interrupts.Ended(number)


async def _serve(arguments: Sequence[str], listening: socket.socket, printed: Callable[[str], object]) -> int:
    """Serve until a signal comes; return its number."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    received: list[int] = []

    def told(number: int) -> None:
        received.append(number)
        ended.set()

    for number in interrupts.SIGNALS:
        loop.add_signal_handler(number, told, number)
    gate = Gate(listening.getsockname()[1])
    runner = web.AppRunner(application(gate, Terminals(arguments)), access_log=None, handle_signals=False)
    await runner.setup()
    try:
        await web.SockSite(runner, listening, shutdown_timeout=_PATIENCE).start()
        printed(gate.address)
        await ended.wait()
    finally:
        await runner.cleanup()
    return received[0]


def application(gate: Gate, terminals: "Terminals") -> web.Application:
    """Put together what is answered."""
    page, script = (files(__package__).joinpath(name).read_text("utf-8") for name in ("page.html", "page.js"))

    async def index(request: web.Request) -> web.Response:
        return web.Response(text=page.replace("{{ host }}", request.host), content_type="text/html")

    async def keys(_request: web.Request) -> web.Response:
        return web.Response(text=script, content_type="text/javascript")

    async def leave(_application: web.Application) -> None:
        await terminals.close()

    made = web.Application(middlewares=[gate.middleware])
    made.on_shutdown.append(leave)
    made.add_routes([web.get("/", index), web.get("/page.js", keys), web.get("/ws", terminals.connect)])
    made.router.add_static("/static", Path(str(files(textual_serve))) / "static")
    return made


class Terminals:
    """The terminals of browsers: a session is shown by one app, so a window that is opened later takes it over."""

    def __init__(self, arguments: Sequence[str]) -> None:
        command = [sys.executable, "-m", "workbench", *arguments]
        self._command = subprocess.list2cmdline(command) if os.name == "nt" else shlex.join(command)
        self._shown: web.WebSocketResponse | None = None
        self._one = asyncio.Lock()

    async def close(self) -> None:
        """End what is shown."""
        if self._shown is not None:
            await self._shown.close()

    async def connect(self, request: web.Request) -> web.WebSocketResponse:
        """Show the app to a browser until either leaves."""
        terminal = web.WebSocketResponse(heartbeat=15, max_msg_size=_LONGEST)
        await terminal.prepare(request)
        await self.close()
        self._shown = terminal
        async with self._one:
            if self._shown is terminal:
                await _show(self._command, terminal, _size(dict(request.query)))
        return terminal


async def _show(command: str, terminal: web.WebSocketResponse, size: tuple[int, int]) -> None:
    """Run the app, and pass on what the browser and it have to say to one another."""
    app = _App(
        command,
        write_bytes=terminal.send_bytes,
        write_str=terminal.send_str,
        close=terminal.close,  # type: ignore[arg-type]
        download_manager=DownloadManager(),
    )
    await app.start(*size)
    ended = asyncio.ensure_future(app.ended())
    ended.add_done_callback(lambda _: asyncio.ensure_future(terminal.close()))
    try:
        async for message in terminal:
            if message.type is WSMsgType.TEXT:
                await _pass_on(message.data, app, terminal)
    finally:
        await app.leave()
        await ended


async def _pass_on(text: str, app: AppService, terminal: web.WebSocketResponse) -> None:
    """Pass on what a browser says; what it cannot say is not heard."""
    try:
        match json.loads(text):
            case ["stdin", str() as keys]:
                await app.send_bytes(keys.encode("utf-8", "replace"))
            case ["resize", dict() as size]:
                await app.set_terminal_size(*_size(size))
            case ["ping", data]:
                await terminal.send_json(["pong", data])
            case ["blur", *_]:
                await app.blur()
            case ["focus", *_]:
                await app.focus()
    except (ValueError, RecursionError):
        return


def _size(said: dict[str, Any]) -> tuple[int, int]:
    """Columns and rows as a browser says them, within reason."""

    def number(name: str) -> int:
        try:
            return min(max(int(said[name]), 1), _LARGEST)
        except (KeyError, TypeError, ValueError):
            return _SIZE[name]

    return number("width"), number("height")


class _App(AppService):
    """The app in its process, which is not waited for without end."""

    async def ended(self) -> None:
        """Wait until it has ended, whether or not it said so."""
        assert self._process is not None
        await self._process.wait()

    async def leave(self) -> None:
        """Let it save what it shows, and end it if it takes long."""
        assert self._process is not None
        try:
            await asyncio.wait_for(self.stop(), _PATIENCE)
        except (TimeoutError, ConnectionError):
            with suppress(ProcessLookupError):
                self._process.kill()
