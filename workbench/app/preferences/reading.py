"""Reading a file of preferences: what it says is obeyed, or refused with its line and the nearest that was meant."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from textual.theme import BUILTIN_THEMES

from store.nearest import did_you_mean
from store.text import printable
from store.whole_files import read_bounded
from workbench.app.preferences import USUAL, Preferences, PreferencesError, preferences_path, wrong
from workbench.app.preferences.keymap import KeymapError, checked_keys
from workbench.cells.metrics import METRICS

_LIMIT = 1 << 16  # bytes
_ENTRIES = ("theme", "metric", "prompt", "keys")
_LONGEST_PROMPT = 1 << 14  # characters
_PLACE = re.compile(r" ?\(at (?:line (\d+), column \d+|end of document)\)")


def read_preferences(path: Path | None = None) -> Preferences:
    """Return what the file says, and for the rest what usually holds; a file that is not there says nothing.

    Raises PreferencesError where it cannot be read, is no TOML, or has an entry that is unknown or cannot be obeyed.
    """
    path = path or preferences_path()
    try:
        text = read_text(path)
    except FileNotFoundError:
        return USUAL
    import tomllib  # the map waits for what is read before it, mostly nothing

    try:
        content = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        place = _PLACE.search(str(error))
        sentence = f"this is not TOML ({_PLACE.sub('', str(error))}); correct it, or move the file away"
        raise wrong(path, int(place[1]) if place and place[1] else len(text.splitlines()), sentence) from None

    def refuse(sentence: str, *place: str) -> PreferencesError:
        return wrong(path, line_of(text, place), sentence)

    for name in content:
        if name not in _ENTRIES:
            near = did_you_mean(name, _ENTRIES, f"there are {', '.join(_ENTRIES)}")
            raise refuse(f"there is no preference {printable(name, 60)}; {near}", name)
    try:
        keys = checked_keys(content.get("keys", {}))
    except KeymapError as error:
        raise refuse(error.sentence, "keys", *error.place) from None
    return Preferences(
        theme=_one_of(content, "theme", USUAL.theme, tuple(BUILTIN_THEMES), refuse),
        metric=_one_of(content, "metric", USUAL.metric, tuple(METRICS), refuse),
        prompt=_prompt(content, refuse),
        keys=keys,
    )


def read_text(path: Path) -> str:
    """Return what a file of preferences holds; it may be a link, as of those who keep such files elsewhere."""
    try:
        return read_bounded(path.resolve(), _LIMIT).decode()
    except FileNotFoundError:
        raise
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise wrong(path, line, "this is not UTF-8; save the file as UTF-8") from None
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        raise wrong(path, None, f"this cannot be read ({getattr(error, 'strerror', error)})") from None


def line_of(text: str, place: tuple[str, ...]) -> int | None:
    """Number of the line that gives a TOML file the entry at `place`; None if none does.

    Found by reading: it is the last line of the shortest beginning of the file that has the entry, where the entry's
    name stands last.
    """
    import tomllib

    lines = text.splitlines()
    first = next((number for number, line in enumerate(lines, 1) if place[-1] in line), len(lines) + 1)
    for number in range(first, len(lines) + 1):
        try:
            entry: Any = tomllib.loads("\n".join(lines[:number]))
        except (tomllib.TOMLDecodeError, RecursionError):
            continue
        for name in place:
            entry = entry.get(name) if isinstance(entry, dict) else None
        if entry is not None:
            return number
    return None


def _one_of(
    content: dict[str, Any], name: str, usual: str, known: tuple[str, ...], refuse: Callable[..., PreferencesError]
) -> str:
    value = content.get(name, usual)
    if not isinstance(value, str) or value not in known:
        shown = printable(str(value), 60)
        near = did_you_mean(shown, known, f"there are {', '.join(known)}")
        raise refuse(f"there is no {name} {shown}; {near}", name)
    return value


def _prompt(content: dict[str, Any], refuse: Callable[..., PreferencesError]) -> str | None:
    value = content.get("prompt")
    if value is None or (isinstance(value, str) and 0 < len(value) <= _LONGEST_PROMPT):
        return value
    raise refuse(f'prompt is a text of 1 to {_LONGEST_PROMPT} characters, such as "def add(a, b):"', "prompt")
