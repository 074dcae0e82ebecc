"""What a user prefers: keys, colours, the metric to begin with, and the prompt where none is given.

The file of preferences is the user's own: it is read, and nothing in it is changed but the theme, when another is
chosen in the app. Its JSON Schema is workbench/schemas/preferences.schema.json.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kernels.errors import WorkbenchError
from store.text import printable
from store.traces.run import DISTRIBUTION
from workbench.cells.metrics import OPENING_METRIC

FILE = "preferences.toml"
THEME = "textual-dark"


class PreferencesError(WorkbenchError):
    """A file of preferences that cannot be obeyed; the message names file and line."""


@dataclass(frozen=True, slots=True)
class Preferences:
    """What holds, whether or not a file says so.

    keys : (screen, action as the file calls it) -> its keys by Textual's names; those of other actions are their usual
    ones. prompt : None where nothing is preferred.
    """

    theme: str = THEME
    metric: str = OPENING_METRIC
    prompt: str | None = None
    keys: Mapping[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)


USUAL = Preferences()


def preferences_path() -> Path:
    """Return where the file of preferences is, or would be."""
    from platformdirs import user_config_path

    return user_config_path(DISTRIBUTION) / FILE


def wrong(path: Path, line: int | None, sentence: str) -> PreferencesError:
    """Return the error that says what is wrong at a line."""
    where = printable(str(path), 1000) + (f", line {line}" if line else "")
    return PreferencesError(f"{where}: {sentence}")
