"""The command palette: what can be done here, from the table of actions, and where one can go, by name."""

import asyncio
from collections.abc import Iterator
from functools import partial
from heapq import nlargest
from typing import TYPE_CHECKING, Protocol, cast

from textual.command import DiscoveryHit, Hit, Hits, Provider
from textual.content import Content

from workbench.app.actions import Action, key_names, of_screen
from workbench.app.pages.fuzzy import matched

if TYPE_CHECKING:
    from workbench.app.jumps import Place

_PLACES = 20  # that are listed at most
_WRITING = "note"  # the screen that is not left by a jump: something is being written there


class _App(Protocol):
    """What the palette needs of the application."""

    def bound(self, action: Action) -> Action:
        """Return an action with the keys that it has in this app."""

    def places(self) -> "Iterator[Place]":
        """Return everything that has a name, but tokens."""

    def tokens_like(self, number: str) -> "Iterator[Place]":
        """Return the tokens whose position or id begins with these digits."""

    def tokens_with(self, text: str) -> "Iterator[Place]":
        """Return the tokens in whose text this stands; it may take a while."""


class ActionProvider(Provider):
    """Offers what can be done on the screen below the palette."""

    async def discover(self) -> Hits:
        """Offer every action."""
        for action in self._actions():
            yield DiscoveryHit(
                action.description, partial(self.screen.run_action, action.name), help=self._help(action)
            )

    async def search(self, query: str) -> Hits:
        """Offer the actions whose name or explanation matches, names first."""
        for action in self._actions():
            run = partial(self.screen.run_action, action.name)
            for text, weight in ((action.description, 2.0), (action.tooltip, 1.0)):
                found = matched(query, text)
                if found is not None:
                    title = _marked(text, found[1]) if text is action.description else action.description
                    yield Hit(weight * found[0], title, run, text=action.description, help=self._help(action))
                    break

    def _actions(self) -> Iterator[Action]:
        screen = str(getattr(self.screen, "NAME", ""))
        return (action for action in of_screen(screen) if action.name != "app.command_palette")

    def _help(self, action: Action) -> str:
        keys = key_names(cast("_App", self.app).bound(action))
        return f"{keys}  {action.tooltip}" if keys else action.tooltip


class PlaceProvider(Provider):
    """Offers the layers, stages, cells, tensors, tokens and notes whose names match."""

    async def startup(self) -> None:
        """Look up what there is: once, and not for every key."""
        self._places: list[Place] = []
        if str(getattr(self.screen, "NAME", "")) != _WRITING:
            self._places = list(cast("_App", self.app).places())

    async def search(self, query: str) -> Hits:
        """Offer the places that match best."""
        numbers = [word for word in query.split() if word.isdecimal()]
        tokens = cast("_App", self.app).tokens_like(numbers[-1]) if self._places and numbers else ()
        found = ((matched(query, place.name), place) for place in (*self._places, *tokens))
        fitting = ((*found, place) for found, place in found if found is not None)
        for score, marks, place in nlargest(_PLACES, fitting, key=lambda each: each[0]):
            yield Hit(score, _marked(place.name, marks), place.go, text=place.name, help=f"Go to this {place.kind}.")


class TokenProvider(Provider):
    """Offers the tokens in whose text the query stands; nothing else waits until a tokenizer was read for it."""

    async def search(self, query: str) -> Hits:
        """Offer the first of them."""
        text = query.removeprefix("token").strip()
        if not text or str(getattr(self.screen, "NAME", "")) == _WRITING:
            return
        for place in await asyncio.to_thread(lambda: list(cast("_App", self.app).tokens_with(text))):
            found = matched(text, place.name)
            if found is not None:
                yield Hit(found[0], _marked(place.name, found[1]), place.go, text=place.name, help="Go to this token.")


def _marked(text: str, marks: list[int]) -> Content:
    """Show where a query matches a text, which is no markup whatever stands in it."""
    content = Content(text)
    for place in marks:
        content = content.stylize("reverse", place, place + 1)
    return content
