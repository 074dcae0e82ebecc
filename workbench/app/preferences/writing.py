"""Preferences as a file says them: all that hold, and the theme that was chosen in the app.

The file of the user stays as it is but for the theme, comments and order too.
"""

from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError

import workbench.schemas
from store.whole_files import write_atomically
from workbench.app.actions import ACTIONS, SCREENS
from workbench.app.preferences import Preferences, preferences_path, wrong
from workbench.app.preferences.keymap import key_written, with_keys
from workbench.app.preferences.reading import read_text

SCHEMA = Path(next(iter(workbench.schemas.__path__))) / "preferences.schema.json"


def what_holds(preferences: Preferences) -> dict[str, Any]:
    """Return preferences as a file would say them, with the keys of every action."""
    keys: dict[str, dict[str, list[str]]] = {screen: {} for screen in SCREENS}
    for action in ACTIONS:
        names = with_keys(action, preferences.keys).keys.split(",")
        keys[action.screen][action.called] = [key_written(name) for name in names if name]
    prompt = {} if preferences.prompt is None else {"prompt": preferences.prompt}
    bound = {screen: {name: each for name, each in actions.items() if each} for screen, actions in keys.items()}
    return {"theme": preferences.theme, "metric": preferences.metric, **prompt, "keys": bound}


def as_toml(held: dict[str, Any]) -> str:
    """Return what holds as TOML."""
    return tomlkit.dumps(held).rstrip()


def keep_theme(theme: str, path: Path | None = None) -> None:
    """Write the theme to the file of preferences, which is made if there is none.

    Raises PreferencesError, and leaves the file as it is, where it is no TOML or cannot be written. Of a link that file
    is replaced which it leads to.
    """
    path = path or preferences_path()
    try:
        document = tomlkit.parse(read_text(path))
    except FileNotFoundError:
        document = tomlkit.document()
    except TOMLKitError as error:
        raise wrong(path, None, f"this is not TOML ({error}); the theme is not kept") from None
    document["theme"] = theme
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path.resolve(), tomlkit.dumps(document))
    except OSError as error:
        raise wrong(path, None, f"this cannot be written ({error.strerror}); the theme is not kept") from None
