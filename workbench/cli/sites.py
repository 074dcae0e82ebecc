"""Stages as options name them: 3:ffn_gate, or lm_head for a stage of the whole model."""

import re
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from kernels.stages import Site

Stages = tuple[str, ...]
_RANGE = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")


def sites_typed(_ctx: click.Context, _option: click.Parameter, typed: str) -> list[str]:
    """Return the stages that begin with what was typed, behind the number of a layer where they have one."""
    from kernels.models import all_stages, layer_stages

    layer, colon, stage = typed.rpartition(":")
    known = layer_stages() if colon else [name for name in all_stages() if name not in layer_stages()]
    return [f"{layer}{colon}{name}" for name in known if name.startswith(stage)]


def site_option(_ctx: click.Context, _option: click.Parameter, value: str | None) -> "Site | None":
    """Read LAYER:STAGE."""
    from kernels.models import all_stages, layer_stages
    from kernels.stages import Site
    from store.nearest import did_you_mean
    from store.text import printable

    if value is None:
        return None
    layer, colon, stage = value.rpartition(":")
    if stage not in all_stages():
        meant = did_you_mean(stage, all_stages(), f"the stages are {', '.join(all_stages())}")
        raise click.BadParameter(f"{printable(value, 60)!r} names no stage; {meant}")
    if stage not in layer_stages():
        if colon:
            raise click.BadParameter(f"{stage} is a stage of the whole model; leave out the layer")
        return Site(None, stage)
    if not re.fullmatch("[0-9]{1,9}", layer):
        raise click.BadParameter(f"{printable(value, 60)!r} names no layer; write 0:{stage} for layer 0")
    return Site(int(layer), stage)


def stages_option(_ctx: click.Context, _option: click.Parameter, value: str | None) -> Stages | None:
    """Read names of stages, or all of them, which is every name; as `apr trace` takes them, in any case of letters."""
    from kernels.models import all_stages
    from store.nearest import did_you_mean
    from store.text import printable

    if value is None:
        return None
    names = [name.strip().lower() for name in value.split(",")]
    if names == ["all"]:
        return ("all",)
    unknown = next((name for name in names if name not in all_stages()), None)
    if unknown is not None:
        meant = did_you_mean(unknown, all_stages(), f"give all, or some of {', '.join(all_stages())}")
        raise click.BadParameter(f"{printable(unknown, 60)!r} names no stage; {meant}")
    return tuple(names)


def layers_option(_ctx: click.Context, _option: click.Parameter, value: str | None) -> frozenset[int] | None:
    """Read numbers of layers and ranges of them, both ends counted: 0,3-5."""
    from store.text import printable

    if value is None:
        return None
    found: set[int] = set()
    for word in value.split(","):
        match = _RANGE.fullmatch(word.strip())
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if last < first:
            raise click.BadParameter(f"{printable(word, 60)!r} is no layer and no range of them; write 0,3-5")
        found.update(range(first, last + 1))
    return frozenset(found)
