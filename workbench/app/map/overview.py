"""All layers on one line where the map does not show them all: the worst sign of each, and which are in view."""

from collections.abc import Sequence

from workbench.app.map.model import MapModel
from workbench.cells.marks import SIGNS

_UNKNOWN = " "
_LEVELS = "=0123456789"
_WORST_FIRST = "".join(SIGNS[mark] for mark in ("culprit", "wrong", "unchecked", "inherited", "fine"))


def overview(model: MapModel, in_view: Sequence[int], width: int) -> list[str]:
    """Return the signs of all layers, as many to a column as it takes for `width`, and a line under those in view."""
    layers = model.layer_axis
    each = -(-len(layers) // max(width, 1))
    groups = [layers[start : start + each] for start in range(0, len(layers), each)]
    shown = set(in_view)
    signs = "".join(_worst([sign_of_layer(model, layer) for layer in group]) for group in groups)
    return [signs, "".join("▔" if shown.intersection(group) else " " for group in groups)]


def sign_of_layer(model: MapModel, layer: int) -> str:
    """The worst sign that the verdict gives any cell of a layer; without one the largest level of a cell, or "!"."""
    if model.marks:
        signs = {model.marks.get(site) for site in model.sites_of(layer)}
        return _worst([SIGNS[mark] for mark in signs if mark is not None])
    looks = [look for site in model.sites_of(layer) if (look := model.look(site)) is not None]
    if any(look.outside for look in looks):
        return "!"
    return _worst([look.glyph for look in looks if look.level is not None])


def _worst(signs: Sequence[str]) -> str:
    """Of signs of a verdict the worst; of levels the largest."""
    for sign in _WORST_FIRST:
        if sign in signs:
            return sign
    return max(signs, key=_LEVELS.find, default=_UNKNOWN)
