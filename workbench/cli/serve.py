"""`workbench serve`: the app in a browser on this machine."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from workbench.cli.options import PATH, bisects_option, json_option, mouse_option, pair_options, statistics_option

if TYPE_CHECKING:
    from workbench.pair.prompt import Prompt


@click.command()
@click.argument("sources", metavar="[A B | SESSION | --demo]", nargs=-1, type=PATH)
@pair_options
@click.option("--session", "folder", metavar="DIR", type=PATH, help="Folder of the session.")
@click.option("--demo", is_flag=True, help="Show the pair that `workbench demo` makes.")
@click.option("--fault", metavar="NAME", help="The fault of the demo's copy.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, help="Port to listen on; any that is free if not given."
)
@statistics_option
@bisects_option
@mouse_option
@json_option
def command(
    sources: tuple[Path, ...],
    tokens: tuple[int, ...] | None,
    prompt: "Prompt | None",
    path_a: str | None,
    path_b: str | None,
    folder: Path | None,
    demo: bool,
    fault: str | None,
    port: int,
    statistics_only: bool,
    bisects: bool,
    mouse: bool,
    as_json: bool,
) -> int:
    """Show the app in a browser on this machine, at an address that works once.

    Nobody else gets in: the server listens to this machine alone, and whoever opens the address that is printed gets a
    cookie for it. From another machine, forward the port (ssh -L 8000:127.0.0.1:8000) and give it as --port. Ctrl-C
    ends it; everything is kept in the session folder.

    \b
    Example:  workbench serve model.gguf model.apr --prompt "def add(a, b):"
    Example:  workbench serve --demo --fault permuted_rope
    """  # noqa: D301
    from kernels.errors import WorkbenchError
    from store.text import printable
    from workbench.app.preferences.reading import read_preferences
    from workbench.cli.open import chosen_session
    from workbench.demo import LAYER, demo_session

    try:
        from workbench.app.browser.server import serve
    except ModuleNotFoundError as error:
        raise WorkbenchError(
            f"the package {error.name} is not installed; install layer-workbench[serve], or textual-serve"
        ) from None
    if demo and statistics_only:
        raise click.UsageError(
            "--statistics-only belongs to two sides, and --demo makes its own; leave one of them out"
        )
    if demo and sources:
        raise click.UsageError(f"--demo makes a pair of its own, and {sources[0]} was given; give one of them")
    if not demo and (fault or not sources):
        raise click.UsageError("--fault belongs to --demo" if fault else "give A and B, a session, or --demo")
    numeric_paths = path_a, path_b
    session = (
        demo_session(fault, LAYER, folder)
        if demo
        else chosen_session(sources, numeric_paths, tokens, prompt, folder, statistics_only=statistics_only)
    )

    def printed(address: str) -> None:
        if as_json:  # at once: there is nothing more to say in the end
            click.echo(json.dumps({"session": str(session.folder), "address": address}))
            sys.stdout.flush()
        else:
            click.echo(f"session  {printable(str(session.folder), 1000)}\nopen     {address}\nctrl-c ends it", err=True)

    read_preferences()  # a file that cannot be obeyed is told here, and not by an app that ends at once
    options = [*([] if bisects else ["--no-bisect"]), *([] if mouse else ["--no-mouse"]), *(["--tour"] if demo else [])]
    serve(["open", str(session.folder), *options], port, printed)
    return 0
