"""The experiments of the lab, one file each, found by name: workbench/lab/experiments/NAME.py with EXPERIMENT."""

import importlib
import pkgutil
from functools import cache
from typing import TYPE_CHECKING

from kernels.errors import WorkbenchError
from store.nearest import did_you_mean
from store.text import printable

if TYPE_CHECKING:
    from workbench.lab.experiment import Experiment


@cache
def experiments() -> "tuple[Experiment, ...]":
    """All of them: those with a published number in its order, then the others by their words."""
    modules = (importlib.import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__))
    found = [module.EXPERIMENT for module in modules]
    return tuple(sorted(found, key=lambda experiment: (not experiment.id.isdecimal(), experiment.id)))


def experiment(name: str) -> "Experiment":
    """The experiment of that number or word; WorkbenchError names those that there are."""
    for known in experiments():
        if name in (known.id, known.word):
            return known
    names = ", ".join(known.id if known.id == known.word else f"{known.id} {known.word}" for known in experiments())
    meant = did_you_mean(name, [word for known in experiments() for word in (known.id, known.word)], f"it has {names}")
    raise WorkbenchError(f"lab has no experiment {printable(name, 40)}; {meant}")
