"""Weight formats, one file each: whatever file lies here is found, and nothing else lists them."""

import pkgutil
from importlib import import_module

from kernels.formats.format import Format

_FOUND = (vars(import_module(f"{__name__}.{module.name}")).get("FORMAT") for module in pkgutil.iter_modules(__path__))
FORMATS: tuple[Format, ...] = tuple(sorted(filter(None, _FOUND), key=lambda format: format.number))
