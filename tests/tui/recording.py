"""Screens as they were recorded in tests/tui/recorded/.

After a change that is meant: RECORD=1 pytest tests/tui/test_recorded.py; then read what git says has changed.
"""

import os
import re
from pathlib import Path

FOLDER = Path(__file__).parent / "recorded"
_CHANGES = (
    (r"\d\d-\d\d \d\d:\d\d(?=  )", "MM-DD hh:mm"),
    (r"done in \d+\.\d s", "done in N.N s"),
)
# Figures of real models: their last digits are those of the machine, what is right of them moves.
_FIGURES = (r"\d*\.\d+(e[-+]?\d+)?|\d+e[-+]?\d+", lambda found: "#" * len(found[0]))


def require_recorded(name: str, text: str, figures: bool = True) -> None:
    """Compare a screen with the recorded one, without times, and without `figures` where they are of real models."""
    for pattern, words in _CHANGES:
        text = re.sub(pattern, words, text)
    if not figures:
        text = re.sub(*_FIGURES, text)
    text = "\n".join(line.rstrip() for line in text.splitlines()) + "\n"
    path = FOLDER / f"{name}.txt"
    if os.environ.get("RECORD"):
        path.write_text(text, encoding="utf-8")
    recorded = path.read_text(encoding="utf-8")
    assert text == recorded, f"{name} looks different; if it should, record it anew: tests/tui/recording.py says how"
