"""Going to a named place: a layer, a stage, a cell, a tensor, a token, a note."""

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from textual.app import App

from kernels.errors import WorkbenchError
from kernels.stages import Site
from store.text import printable
from workbench.app.map.screen import MapScreen
from workbench.cells.view import TokenScope

if TYPE_CHECKING:
    from workbench.session.session import Session

_TOKENS = 20  # that are offered for a number or a text, of what may be a hundred thousand


class Place(NamedTuple):
    """What can be gone to. name : safe to show. kind : a word for it."""

    name: str
    kind: str
    go: Callable[[], None]


class Jumps(App[int]):
    """The part of the application that goes to places by name."""

    session: "Session"
    map_screen: MapScreen
    _texts: list[str] | None = None  # of the tokens, once they were asked for

    @abstractmethod
    def show_weights(self, name: str | None) -> None:
        """Compare every weight tensor, the cursor on one of them."""

    @abstractmethod
    def show_hypotheses(self, number: int | None) -> None:
        """List the hypotheses, the cursor on one of them."""

    def back_to_map(self) -> None:
        """Leave whatever stands over the map."""
        while self.screen is not self.map_screen:
            self.pop_screen()

    def places(self) -> Iterator[Place]:
        """Everything that has a name, tokens left out: `tokens_like` has those."""
        from workbench.lab.shelf import shelf_of

        model, here = self.map_screen.model, self.map_screen.model.cursor
        sites = model.sites()
        for layer in sorted({site.layer for site in sites if site.layer is not None}):
            stage = here.stage if here.layer is not None else model.stages[0]
            yield Place(f"layer {layer}", "layer", partial(self._to_site, Site(layer, stage)))
        for stage in dict.fromkeys(site.stage for site in sites):
            alike = [site for site in sites if site.stage == stage]
            nearest = min(alike, key=lambda site: abs((site.layer or 0) - (here.layer or 0)))
            yield Place(stage, "stage", partial(self._to_site, nearest))
        for site in sites:
            yield Place(str(site), "cell", partial(self._to_site, site))
        for name in self._tensor_names(sites):
            yield Place(printable(name, 200), "tensor", partial(self._to_tensor, name))
        for note in shelf_of(self.session)[0]:
            yield Place(f"{note.number} {printable(note.title, 200)}", "note", partial(self._to_note, note.number))

    @property
    def tokens(self) -> tuple[int, ...]:
        """The ids that are run."""
        run = next(iter(self.map_screen.runs.values()), None)
        return self.session.spec.tokens if run is None else run.tokens

    def tokens_like(self, number: str) -> Iterator[Place]:
        """Tokens whose position or id begins with these digits."""
        found = (
            Place(f"token {position} (id {token})", "token", partial(self._to_token, position))
            for position, token in enumerate(self.tokens)
            if str(position).startswith(number) or str(token).startswith(number)
        )
        return islice(found, _TOKENS)

    def tokens_with(self, text: str) -> Iterator[Place]:
        """Tokens in whose text this stands, upper and lower case alike, and with the text in their names.

        The first time this reads the tokenizer of either model, which may take a while; without one there are none.
        """
        if self._texts is None:
            self._texts = self._token_texts()
        wanted = text.lower()
        found = (
            Place(f'token {position} "{known}"', "token", partial(self._to_token, position))
            for position, known in enumerate(self._texts)
            if wanted in known.lower()
        )
        return islice(found, _TOKENS)

    def _token_texts(self) -> list[str]:
        from workbench.pair.sources import open_model
        from workbench.pair.tokenizer import decode_tokens

        for side in (self.session.spec.a, self.session.spec.b):
            with suppress(WorkbenchError):
                model = open_model(side)
                if model.vocabulary is not None:
                    return decode_tokens(model, self.tokens)
        return []

    def _tensor_names(self, sites: list[Site]) -> list[str]:
        from kernels.models import Graph

        graphs = [Graph(run.config) for run in self.map_screen.runs.values()]
        stages = (graph.stage(site) for graph in graphs for site in sites)
        return list(dict.fromkeys(name for stage in stages if stage is not None for name in stage.tensors))

    def _to_site(self, site: Site) -> None:
        self.back_to_map()
        self.map_screen.show_site(site)

    def _to_token(self, position: int) -> None:
        self.back_to_map()
        view = self.map_screen.model.view
        self.map_screen.change_view(view._replace(tokens=TokenScope("one", position)))

    def _to_tensor(self, name: str) -> None:
        self.back_to_map()
        self.show_weights(name)

    def _to_note(self, number: int) -> None:
        self.back_to_map()
        self.show_hypotheses(number)
