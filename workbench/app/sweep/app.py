"""The application around the one screen of a sweep."""

from pathlib import Path

from textual.screen import Screen

from workbench.app.painting import PaintsChanges
from workbench.app.preferences import USUAL, Preferences
from workbench.app.preferences.obeying import ObeysPreferences
from workbench.app.sweep.screen import SweepScreen
from workbench.machine import interrupts
from workbench.sweep.planning import Plan
from workbench.sweep.running import Engine
from workbench.sweep.tally import Tally


class SweepApp(PaintsChanges, ObeysPreferences):
    """Shows a sweep; see `workbench.app.sweep.show`."""

    TITLE = "workbench sweep"
    CSS_PATH = "../app.tcss"
    ENABLE_COMMAND_PALETTE = False
    AUTO_FOCUS = "LineList"

    def __init__(
        self,
        plan: Plan,
        engine: Engine,
        output: Path,
        resume: bool,
        tally: Tally,
        metric: str,
        preferences: Preferences = USUAL,
    ) -> None:
        super().__init__()
        self.obey(preferences)
        self.output = output
        self.sweep_screen = SweepScreen(plan, engine, output, resume, tally, metric)

    def get_default_screen(self) -> Screen[None]:
        """Start with the sweep."""
        return self.sweep_screen

    def on_load(self) -> None:
        """Before the screen is taken: give it back if this process is told to end."""
        interrupts.tell(lambda number: self.exit(interrupts.exit_code(number)))

    def action_show_help(self) -> None:
        """List every key; from the list, go back."""
        from workbench.app.pages.help_screen import HelpScreen

        if isinstance(self.screen, HelpScreen):
            self.pop_screen()
        else:
            self.push_screen(HelpScreen(SweepScreen.NAME, self.bound, self.output))
