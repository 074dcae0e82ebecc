"""Families of models, one file each, found by name: kernels/models/NAME.py with FAMILY, its Family."""

import importlib
import pkgutil
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cache

from kernels.config import ModelConfig
from kernels.family import Family, Has
from kernels.graph import LAYER_INPUT, Model, Stage
from kernels.stages import FIRST_STAGES, LAST_STAGES, SPINE, Site

ARCHITECTURES: tuple[str, ...] = tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


@cache
def family(architecture: str) -> Family:
    """The family of that name, which is one of ARCHITECTURES."""
    found: Family = importlib.import_module(f"kernels.models.{architecture}").FAMILY
    return found


def architecture_of(found: Family) -> str:
    """The name of a family, under which `family` finds it."""
    return type(found).__module__.rpartition(".")[2]


def called(name: str, by: Callable[[Family], bool]) -> Family | None:
    """The first family that is called so by a container; None if none is.

    Files of other families are loaded only where the one with the most similar name is not it.
    """
    likely = sorted(ARCHITECTURES, key=lambda known: (known != name, not name.startswith(known)))
    return next((found for found in map(family, likely) if by(found)), None)


def read_as(architecture: str) -> str:
    """The family as which GGUF files of a model are read; the name as it is where it is not known."""
    return (family(architecture).gguf_family or architecture) if architecture in ARCHITECTURES else architecture


@cache
def layer_stages(*architectures: str) -> tuple[str, ...]:
    """Names of all stages that layers of these families have, or of any, in execution order."""
    names = list(SPINE)
    for architecture in architectures or ARCHITECTURES:
        place = 0
        for name in family(architecture).stages:
            if name not in names:
                names.insert(place, name)
            place = names.index(name) + 1
    return tuple(names)


def ordered(names: Collection[str]) -> list[str]:
    """Those of the stages of layers that are named, in execution order."""
    return [stage for stage in layer_stages() if stage in names]


def in_layers(stage: str) -> bool:
    """Whether layers of some family have a stage of that name."""
    return stage in SPINE or stage in layer_stages()


@cache
def all_stages() -> tuple[str, ...]:
    """Names of all stages of any family, in execution order."""
    return FIRST_STAGES + layer_stages() + LAST_STAGES


def sites(layers: int, inner: Sequence[str]) -> list[Site]:
    """All sites of a model with so many layers, first computed first. inner : the stages of a layer in that order."""
    found = [Site(None, stage) for stage in FIRST_STAGES]
    found += [Site(layer, stage) for layer in range(layers) for stage in inner]
    return found + [Site(None, stage) for stage in LAST_STAGES]


def execution_order(*configs: ModelConfig) -> list[Site]:
    """All sites that models of these configurations may have; those of stages that only some models have, too."""
    return sites(max(config.num_hidden_layers for config in configs), stages_of(*configs))


def stages_of(*configs: ModelConfig) -> tuple[str, ...]:
    """Names of the stages that layers of models of these configurations may have, in execution order."""
    architectures = sorted({config.architecture for config in configs})
    there = {name for config in configs for name in family(config.architecture).stages_of(config)}
    return tuple(name for name in layer_stages(*architectures) if name in there)


class Graph:
    """The stages that a model has; layers are built when they are asked for."""

    def __init__(self, config: ModelConfig, has: Has = lambda _: True) -> None:
        """has : which of the optional tensors there are; all of them where it is not said."""
        self._config, self._has, self._family = config, has, family(config.architecture)
        self._layers: dict[int, tuple[Stage, ...]] = {}

    @classmethod
    def of(cls, model: Model) -> "Graph":
        """The graph of a model with the tensors that it has."""
        return cls(model.config, model.__contains__)

    def layer(self, number: int) -> tuple[Stage, ...]:
        """The stages of a layer in execution order."""
        if number not in self._layers:
            self._layers[number] = self._family.layer(self._config, number, self._has)
        return self._layers[number]

    @property
    def first(self) -> tuple[Stage, ...]:
        """What comes before the layers."""
        return self._family.first(self._config)

    @property
    def last(self) -> tuple[Stage, ...]:
        """What comes after the layers."""
        return self._family.last(self._config, self._has)

    def stage(self, site: Site) -> Stage | None:
        """The stage at a site; None if the model does not have it."""
        if site.layer is None:
            stages = self.first + self.last
        else:
            stages = self.layer(site.layer) if site.layer < self._config.num_hidden_layers else ()
        return next((stage for stage in stages if stage.site == site), None)

    def stages(self) -> Iterator[Stage]:
        """All stages in execution order."""
        yield from self.first
        for number in range(self._config.num_hidden_layers):
            yield from self.layer(number)
        yield from self.last

    def sites(self) -> list[Site]:
        """All sites in execution order."""
        return [stage.site for stage in self.stages()]

    def reads(self, stage: Stage) -> dict[str, Site]:
        """Where what a stage reads stands, by role."""
        return {role: self._origin(stage.site.layer, name) for role, name in stage.inputs.items()}

    def given(self, layer: int) -> dict[str, Site]:
        """Where what a layer reads of what is before it stands, by the name under which it does."""
        before = self.layer(layer - 1)[-1].site if layer else self.first[-1].site
        return {LAYER_INPUT: before, **self._family.elsewhere(self._config, layer)}

    @property
    def elsewhere(self) -> set[Site]:
        """All that layers read of what is before them but for what the one before gives."""
        layers = range(self._config.num_hidden_layers)
        return {site for number in layers for site in self._family.elsewhere(self._config, number).values()}

    def needed(self, layer: int) -> set[Site]:
        """What a layer and all that comes behind it read of what is before it."""
        layers = self._config.num_hidden_layers
        if layer == layers:
            return {self.layer(layer - 1)[-1].site}
        read = {
            site for number in range(layer, layers) for site in self._family.elsewhere(self._config, number).values()
        }
        return {self.given(layer)[LAYER_INPUT], *(site for site in read if site.layer is None or site.layer < layer)}

    def _origin(self, layer: int | None, name: str) -> Site:
        if layer is None:
            whole = (stage.site for stage in self.first + self.last if stage.site.stage == name)
            return next(whole, Site(self._config.num_hidden_layers - 1, name))
        return self.given(layer).get(name, Site(layer, name))
