"""Places of stages as JSON has them, {"layer": 3, "stage": "ffn_gate"}, and the way back."""

from typing import Any

from kernels.models import in_layers
from kernels.stages import FIRST_STAGES, LAST_STAGES, Site
from store.errors import StoreError


def site_json(site: Site) -> dict[str, Any]:
    """Return a place as JSON values."""
    return {"layer": site.layer, "stage": site.stage}


def read_site(record: object) -> Site:
    """Return the place that a record names, maybe beside other things; StoreError if there is no such place."""
    match record:
        case {"layer": int(layer), "stage": str(stage)} if layer >= 0 and in_layers(stage):
            return Site(layer, stage)
        case {"layer": None, "stage": str(stage)} if stage in FIRST_STAGES + LAST_STAGES:
            return Site(None, stage)
    raise StoreError("The record names no place of a model.")
