"""`workbench preferences`: what the app is told by the user's file, and every key that can be chosen in it."""

import click

from workbench.cli.options import json_option, print_json
from workbench.cli.tables import echo


@click.command()
@json_option
def command(as_json: bool) -> int:
    """Show keys, theme, metric and prompt as they hold, as a file of preferences.

    The first lines say where that file is, and its JSON Schema; it takes what differs from the usual. A file that
    cannot be obeyed is refused, with the line.

    \b
    Example:  workbench preferences
    """  # noqa: D301
    from store.text import printable
    from workbench.app.preferences import preferences_path
    from workbench.app.preferences.reading import read_preferences
    from workbench.app.preferences.writing import SCHEMA, as_toml, what_holds

    path = preferences_path()
    held = what_holds(read_preferences(path))
    if as_json:
        print_json({"file": str(path), "exists": path.exists(), "schema": str(SCHEMA), "preferences": held})
        return 0
    there = "" if path.exists() else ", which is not there"
    echo(f"# what holds; the file is {printable(str(path), 1000)}{there}\n#:schema {printable(str(SCHEMA), 1000)}")
    echo(as_toml(held))
    return 0
