"""Stages as options name them: 3:ffn_gate, or lm_head for a stage of the whole model."""

import re
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from kernels.stages import Site


def site_option(_ctx: click.Context, _option: click.Parameter, value: str | None) -> "Site | None":
    """Read LAYER:STAGE."""
    from kernels.models import all_stages, layer_stages
    from kernels.stages import Site
    from store.text import printable

    if value is None:
        return None
    layer, colon, stage = value.rpartition(":")
    if stage not in all_stages():
        raise click.BadParameter(f"{printable(value, 60)!r} names no stage; the stages are {', '.join(all_stages())}")
    if stage not in layer_stages():
        if colon:
            raise click.BadParameter(f"{stage} is a stage of the whole model; leave out the layer")
        return Site(None, stage)
    if not re.fullmatch("[0-9]{1,9}", layer):
        raise click.BadParameter(f"{printable(value, 60)!r} names no layer; write 0:{stage} for layer 0")
    return Site(int(layer), stage)
