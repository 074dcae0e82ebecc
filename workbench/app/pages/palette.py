"""The command palette, filled from the table of actions."""

from collections.abc import Iterator
from functools import partial

from textual.command import DiscoveryHit, Hit, Hits, Provider

from workbench.app.actions import Action, key_names, of_screen


class ActionProvider(Provider):
    """Offers what can be done on the screen below the palette."""

    async def discover(self) -> Hits:
        """Offer every action."""
        for action in self._actions():
            yield DiscoveryHit(action.description, partial(self.screen.run_action, action.name), help=_help(action))

    async def search(self, query: str) -> Hits:
        """Offer the actions whose description matches."""
        matcher = self.matcher(query)
        for action in self._actions():
            score = matcher.match(f"{action.description} {action.tooltip}")
            if score > 0:
                title = matcher.highlight(action.description)
                yield Hit(score, title, partial(self.screen.run_action, action.name), help=_help(action))

    def _actions(self) -> Iterator[Action]:
        screen = str(getattr(self.screen, "NAME", ""))
        return (action for action in of_screen(screen) if action.name != "app.command_palette")


def _help(action: Action) -> str:
    keys = key_names(action)
    return f"{keys}  {action.tooltip}" if keys else action.tooltip
