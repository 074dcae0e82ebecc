"""`workbench open`: a pair in the app, or without a terminal the same work as text."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from workbench.cli.options import PATH, json_option, pair_options
from workbench.cli.sources import open_session, require_none_given

if TYPE_CHECKING:
    from workbench.session.session import Session


@click.command()
@click.argument("sources", metavar="[A B | SESSION]", nargs=-1, required=True, type=PATH)
@pair_options
@click.option("--session", "folder", metavar="DIR", type=PATH, help="Folder of the session.")
@json_option
def command(
    sources: tuple[Path, ...],
    tokens: tuple[int, ...] | None,
    prompt: str | None,
    path_a: str | None,
    path_b: str | None,
    folder: Path | None,
    as_json: bool,
) -> int:
    """Open two models or traces side by side, or a saved session.

    The screen shows itself at once and fills while both sides run. Everything is kept in the session folder. Where
    stdout is not a terminal, or with --json, the same work is done, the pair is bisected unless the session has a
    verdict on the same files, and the result is printed, the verdict first.

    Exit code: that of the verdict, as `workbench bisect` gives it; in the app, if nobody has bisected, what the map
    says.

    \b
    Example:  workbench open model.gguf model.apr --prompt "def add(a, b):"
    Example:  workbench open sessions/model-vs-model
    """  # noqa: D301
    from workbench.cli.headless import show

    return show(_session(sources, (path_a, path_b), tokens, prompt, folder), as_json)


def _session(
    sources: tuple[Path, ...],
    numeric_paths: tuple[str | None, str | None],
    tokens: tuple[int, ...] | None,
    prompt: str | None,
    folder: Path | None,
) -> "Session":
    if len(sources) == 2:
        from workbench.pair.pairing import pair_session

        return pair_session((sources[0], sources[1]), numeric_paths, tokens, prompt, folder)
    if len(sources) > 2:
        raise click.UsageError(f"two sides are compared, not {len(sources)}; give A and B")
    options = {"--tokens": tokens, "--prompt": prompt, "--path-a": numeric_paths[0], "--path-b": numeric_paths[1]}
    require_none_given(options | {"--session": folder}, sources[0])
    return open_session(sources[0])
