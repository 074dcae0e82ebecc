"""`workbench serve` in a real browser: the page paints the app, and keys pressed in it reach the app."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("aiohttp", reason="the extra [serve] is not installed")
pytest.importorskip("textual_serve", reason="the extra [serve] is not installed")

from tests.tui import chromium

MANY = 20  # colours that a page has at least on which a map was painted
ROOT = Path(__file__).parents[2]
needs_browser = pytest.mark.skipif(
    chromium.found() is None,
    reason=f"no browser ({', '.join(chromium.NAMES)}) is on PATH; install the package chromium, or Google Chrome",
)


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of `workbench serve --demo --fault permuted_rope`."""
    command = [sys.executable, "-m", "workbench", "serve", "--demo", "--fault", "permuted_rope", "--session", folder]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TEXTUAL_ANIMATIONS": "none"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True)
    try:
        yield [process.stderr.readline() for _ in range(3)][1].split()[1]
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 128 + signal.SIGINT
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


@needs_browser
async def test_a_browser_paints_the_app_and_its_keys_go_to_the_verdict(tmp_path):
    with served(tmp_path / "s") as address:
        async with chromium.opened(chromium.found(), tmp_path / "browser") as page:
            await page.go(address)
            lines = await page.shows("✗ BROKEN at layer 3 qkv_matmul")
            assert any(line.startswith("▸embedding") for line in lines)
            assert any(line.startswith(" 1/5  press") for line in lines)
            await page.press("ArrowDown")
            await page.shows("▸attn_norm")
            await page.press("b", text="b")
            lines = await page.shows("▸qkv_matmul")
            assert any(line.startswith("▸qkv_matmul") and "✗]" in line for line in lines), "\n".join(lines)
            assert await page.colours() > MANY
            await page.press("Enter", text="\r")
            await page.shows("esc Back")
            await page.shows("DIVERGENT")
        origin = address.partition("?")[0]
        served_from = (origin, origin.replace("http", "ws"), "data:")
        assert [url for url in page.requested if not url.startswith(served_from)] == []
