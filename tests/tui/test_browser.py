"""The app in a browser: who gets in, and that what is there is the app."""

import os
import re
import signal
import subprocess
import sys
from http.cookies import SimpleCookie
from pathlib import Path

import pytest

aiohttp = pytest.importorskip("aiohttp", reason="the extra [serve] is not installed")
pytest.importorskip("textual_serve", reason="the extra [serve] is not installed")

from aiohttp.test_utils import TestClient, TestServer  # noqa: E402

from workbench.app.browser.gate import Gate  # noqa: E402
from workbench.app.browser.server import Terminals, application  # noqa: E402

ROOT = Path(__file__).parents[2]
HOST = {"Host": "127.0.0.1:8000"}
TELLS_SIZE = "import os, sys; print('__GANGLION__', flush=True); " + (
    "data = (os.environ['COLUMNS'] + 'x' + os.environ['ROWS']).encode(); "
    "sys.stdout.buffer.write(b'D' + len(data).to_bytes(4, 'big') + data); sys.stdout.flush(); sys.stdin.read()"
)


@pytest.fixture
async def gate():
    return Gate(8000)


@pytest.fixture
async def browser(gate):
    """A browser at a server whose app is a program that says how large its terminal is."""
    terminals = Terminals([])
    terminals._command = subprocess.list2cmdline([sys.executable, "-c", TELLS_SIZE])
    jar = aiohttp.DummyCookieJar()
    async with TestClient(TestServer(application(gate, terminals)), cookie_jar=jar) as client:
        yield client


async def status(browser, path: str, method: str = "GET", **headers: str) -> int:
    async with browser.request(method, path, headers=HOST | headers, allow_redirects=False) as response:
        return response.status


async def enter(browser, gate) -> dict[str, str]:
    """Open the address that is printed; the header that a browser then sends."""
    path = gate.address.removeprefix("http://127.0.0.1:8000")
    async with browser.get(path, headers=HOST, allow_redirects=False) as response:
        assert (response.status, response.headers["Location"]) == (303, "/")
        (cookie,) = response.headers.getall("Set-Cookie")
    assert {"HttpOnly", "SameSite=Strict"} <= set(cookie.split("; "))
    morsel = next(iter(SimpleCookie(cookie).values()))
    return {"Cookie": f"{morsel.key}={morsel.value}"}


async def test_the_address_works_once_and_nothing_works_without_it(browser, gate):
    path = gate.address.removeprefix("http://127.0.0.1:8000")
    for other in ("/", "/ws", "/static/js/textual.js", "/?token=", "/?token=%ff", f"/ws{path[1:]}", f"{path}x"):
        assert await status(browser, other) == 403, other
    assert await status(browser, path, "HEAD") == 403
    cookie = await enter(browser, gate)
    assert await status(browser, "/", **cookie) == 200
    assert await status(browser, "/static/js/textual.js", **cookie) == 200
    assert await status(browser, path) == 403
    assert await status(browser, path, **cookie) == 403
    name = cookie["Cookie"].partition("=")[0]
    assert await status(browser, "/", Cookie=f"{name}=x") == 403
    assert await status(browser, "/") == 403


@pytest.mark.parametrize("host", ["evil.example:8000", "127.0.0.1.evil.example", "0.0.0.0:8000", "[::1", ""])
async def test_a_request_under_another_name_is_refused(browser, gate, host):
    path = gate.address.removeprefix("http://127.0.0.1:8000")
    assert await status(browser, path, Host=host) == 403
    cookie = await enter(browser, gate)  # so the token was not used up
    assert await status(browser, "/", Host=host, **cookie) == 403


async def test_a_page_of_somebody_else_gets_no_terminal(browser, gate):
    cookie = await enter(browser, gate)
    for origin in ("http://evil.example", "http://127.0.0.1:3000", "null"):
        with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
            await browser.ws_connect("/ws", headers=HOST | cookie | {"Origin": origin})


async def test_the_page_needs_nothing_from_elsewhere(browser, gate):
    cookie = await enter(browser, gate)
    async with browser.get("/", headers=HOST | cookie) as response:
        page = await response.text()
        assert "default-src 'self'" in response.headers["Content-Security-Policy"]
    assert re.findall('[a-z]+://[^/"]*', page) == ["ws://127.0.0.1:8000"]
    for path in re.findall('(?:href|src)="(/[^"]*)"', page):
        assert await status(browser, path, **cookie) == 200, path


async def test_a_window_opened_later_takes_the_app_over(browser, gate):
    headers = HOST | await enter(browser, gate)
    first = await browser.ws_connect("/ws?width=91&height=31", headers=headers)
    assert await first.receive_bytes(timeout=60) == b"91x31"
    second = await browser.ws_connect("/ws?width=99999&height=x", headers=headers)
    assert (await first.receive(timeout=60)).type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)
    assert await second.receive_bytes(timeout=60) == b"1000x24"
    for odd in ("", "[", "7", "{}", '["stdin"]', '["stdin", 7]', '["resize", 1]', '["resize", {"width": null}]'):
        await second.send_str(odd)
    await second.send_str('["ping", "1"]')
    assert await second.receive_json(timeout=60) == ["pong", "1"]
    await second.close()


async def test_what_is_served_is_the_app(tmp_path):
    command = [sys.executable, "-m", "workbench", "serve", "--demo", "--session", str(tmp_path / "s")]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TEXTUAL_ANIMATIONS": "none"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True)
    try:
        lines = [process.stderr.readline() for _ in range(3)]
        address = lines[1].split()[1]
        jar = aiohttp.CookieJar(unsafe=True)  # which keeps cookies of numbers, as browsers do
        async with aiohttp.ClientSession(cookie_jar=jar) as browser:
            async with browser.get(address) as page:
                assert page.status == 200
            async with browser.ws_connect(f"{page.url.origin()}/ws?width=120&height=40") as terminal:
                await painted(terminal, "all 7 tokens")
                await painted(terminal, "compared, 0 out of band")
                await terminal.send_str('["stdin", "m"]')
                await painted(terminal, "relative RMS")
                await terminal.send_str('["stdin", "q"]')
                while (await terminal.receive(timeout=60)).type is aiohttp.WSMsgType.BINARY:
                    pass
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 128 + signal.SIGINT
        assert process.stderr.read().splitlines()[-1] == "workbench: interrupted"
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


async def painted(terminal, words: str) -> None:
    """Wait until the app has painted some words."""
    text = ""
    while words not in text:
        text += (await terminal.receive_bytes(timeout=300)).decode(errors="replace")
        text = re.sub("\x1b\\[[0-9;?]*[a-zA-Z]", "", text)
