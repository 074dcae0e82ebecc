"""Takes the pictures of README from the real app: the shipped pair is opened, bisected and followed to its bytes.

Run with `make pictures`; it writes docs/pictures/*.svg, which need no network and no font of their own.
"""

import asyncio
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

from textual.pilot import Pilot

from workbench.app.app import WorkbenchApp
from workbench.demo import demo_session

FOLDER = Path(__file__).parent / "pictures"
SIZE = (120, 36)
_PATIENCE = 0.05  # seconds between two looks at the screen
_FONTS = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)


async def until(condition: Callable[[], object]) -> None:
    """Wait for something to be on the screen."""
    while not condition():
        await asyncio.sleep(_PATIENCE)


def take(pilot: Pilot[int], name: str, title: str) -> None:
    """Save what the screen shows."""
    picture = _FONTS.sub("", pilot.app.export_screenshot(title=title))
    (FOLDER / f"{name}.svg").write_text(picture, encoding="utf-8")


async def walk(folder: Path) -> None:
    """Go the way from the map to the bytes, and take a picture of each screen."""
    app = WorkbenchApp(demo_session("permuted_rope", 3, folder))
    async with app.run_test(size=SIZE) as pilot:

        def shows(words: str) -> bool:
            return any(words in strip.text for strip in app.screen._compositor.render_strips())

        await until(lambda: app.map_screen.known is not None and app.map_screen.known.whole)
        await until(lambda: not app.map_screen.asking)
        await pilot.press("b")
        await until(lambda: shows("PROOF"))
        await pilot.pause()
        take(pilot, "1-verdict", "b: the first place that is really wrong")
        await pilot.press("enter", "enter")
        await until(lambda: shows("largest |d| first") and shows("proj.weight"))
        take(pilot, "2-elements", "enter: every element of the cell")
        await pilot.press("b")
        await until(lambda: shows("equal, bit for bit"))
        take(pilot, "3-bytes", "b: the bytes that an element is computed from, recomputed")
        await pilot.press("escape", "escape", "escape")
        await pilot.press(*"iiii")
        await until(lambda: shows("what rounding can cause"))
        await pilot.pause()
        take(pilot, "4-local", "i: what every stage adds by itself")


def main() -> None:
    """Take all pictures."""
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(walk(Path(folder) / "demo"))


if __name__ == "__main__":
    main()
