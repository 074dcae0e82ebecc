"""A sweep on the screen while it runs: its tables, how far it is, stop and resume."""

from pathlib import Path
from typing import TYPE_CHECKING

from workbench.machine import interrupts, terminal

if TYPE_CHECKING:
    from workbench.sweep.planning import Plan
    from workbench.sweep.running import Engine
    from workbench.sweep.tally import Tally


def show(plan: "Plan", engine: "Engine", output: Path, resume: bool, tally: "Tally", metric: str) -> None:
    """Run a sweep on the screen until the user leaves; what then is finished is in the file and in the tally.

    Raises what the sweep could not go on for.
    """
    from workbench.app.preferences.reading import read_preferences
    from workbench.app.sweep.app import SweepApp

    app = SweepApp(plan, engine, output, resume, tally, metric, read_preferences())
    try:
        app.run()
    except BaseException:
        terminal.give_back()
        raise
    terminal.returned()
    interrupts.unwind()
    app.sweep_screen.ended()
    if (number := interrupts.received()) is not None:
        raise interrupts.Ended(number)
    if (error := app.sweep_screen.error) is not None:
        raise error
