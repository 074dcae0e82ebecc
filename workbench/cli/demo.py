"""`workbench demo`: a pair made on the spot from the model that ships with the program."""

from collections.abc import Iterable
from pathlib import Path

import click

from workbench.cli.options import PATH, bisects_option, completing, json_option, mouse_option, plain_option, print_json
from workbench.cli.tables import echo


def _faults() -> Iterable[str]:
    from workbench.demo.faults import FAULTS

    return FAULTS


@click.command()
@click.option(
    "--fault",
    metavar="NAME",
    shell_complete=completing(_faults),
    help="Give the copy this fault; see --list-faults.",
)
@click.option("--layer", type=int, default=3, show_default=True, help="Layer that the fault is in.")
@click.option("--list-faults", is_flag=True, help="List the faults and exit.")
@click.option("--session", "folder", metavar="DIR", type=PATH, help="Folder of the session.")
@bisects_option
@plain_option
@mouse_option
@json_option
def command(
    fault: str | None,
    layer: int,
    list_faults: bool,
    folder: Path | None,
    bisects: bool,
    plain: bool,
    mouse: bool,
    as_json: bool,
) -> int:
    """Open a small trained model, as GGUF, beside an APR copy of it that is healthy or has a fault you choose.

    It goes on as `workbench open` does, with the same exit code: 1 once a fault is found.

    \b
    Example:  workbench demo --fault permuted_rope
    """  # noqa: D301
    if list_faults:
        return _list(as_json)
    from workbench.cli.headless import require_one_way, show
    from workbench.demo import demo_session

    require_one_way(plain, as_json)
    return show(demo_session(fault, layer, folder), as_json, plain, bisects, mouse=mouse, tour=True)


def _list(as_json: bool) -> int:
    from workbench.cli.tables import aligned
    from workbench.demo.faults import FAULTS

    if as_json:
        print_json({name: fault.summary for name, fault in FAULTS.items()})
    else:
        echo("\n".join(aligned([(name, fault.summary) for name, fault in FAULTS.items()])))
    return 0
