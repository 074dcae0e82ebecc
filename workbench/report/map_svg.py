"""Maps as a picture that needs nothing but itself: rectangles and text in whatever monospace font there is."""

from collections.abc import Iterator, Mapping
from html import escape

from kernels.models import all_stages
from kernels.stages import FIRST_STAGES, Site
from workbench.cells.heat import LEGEND, PALETTE, Look

_CELL, _ROW, _LEFT, _TOP, _LETTER = 22, 18, 150, 66, 7.3  # pixels
_PLAIN, _INK, _PAPER = "#dddddd", "#1a1a1a", "#ffffff"
_LEGEND = f"{LEGEND}   framed: outside the band"
_LIGHT_TEXT_BELOW = 4  # levels darker than this carry white glyphs


def map_svg(title: str, maps: Mapping[str, Mapping[Site, Look]], legend: str = _LEGEND) -> str:
    """Draw maps side by side, each under its name: stages as rows, layers as columns.

    Whole-model stages stand at the first or the last layer. legend : its parts have three spaces between them.
    """
    layers = sorted({site.layer for looks in maps.values() for site in looks if site.layer is not None})
    panel = max(_LEFT + _CELL * max(len(layers), 1), *(round(_LEFT + _LETTER * len(name)) for name in maps)) + 20
    parts_of_legend = legend.split("   ")
    legend_lines = ["   ".join(parts_of_legend[:3]), "   ".join(parts_of_legend[3:])]
    width = max(panel * len(maps), round(_LETTER * max(len(title), *map(len, legend_lines)))) + 20
    there = {site.stage for looks in maps.values() for site in looks}
    stages = [stage for stage in all_stages() if stage in there]
    bottom = _TOP + _ROW * len(stages)
    height = bottom + 24 + _ROW * len(legend_lines)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'font-family="monospace" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="{_PAPER}"/>',
        _text(10, 20, title, weight="bold"),
    ]
    for number, (name, looks) in enumerate(maps.items()):
        parts += _map(number * panel, name, looks, layers, stages)
    parts += [_text(10, bottom + 20 + _ROW * n, line) for n, line in enumerate(legend_lines)]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _map(left: float, name: str, looks: Mapping[Site, Look], layers: list[int], stages: list[str]) -> Iterator[str]:
    first = left + _LEFT
    yield _text(first, _TOP - 24, name)
    for column, layer in enumerate(layers):
        yield _text(first + (column + 0.5) * _CELL, _TOP - 6, str(layer), anchor="middle")
    for row, stage in enumerate(stages):
        y = _TOP + row * _ROW
        yield _text(first - 8, y + 13, stage, anchor="end")
        for site in (site for site in looks if site.stage == stage):
            column = _whole_model_column(stage, layers) if site.layer is None else layers.index(site.layer)
            yield _cell(first + column * _CELL, y, looks[site], site)


def _whole_model_column(stage: str, layers: list[int]) -> int:
    return 0 if stage in FIRST_STAGES else max(len(layers) - 1, 0)


def _cell(x: float, y: float, look: Look, site: Site) -> str:
    fill = _PLAIN if look.level is None else PALETTE[look.level]
    ink = _PAPER if look.level is not None and look.level < _LIGHT_TEXT_BELOW else _INK
    frame = f' stroke="{_INK}" stroke-width="2"' if look.outside else ""
    box = f'<rect x="{x + 1:g}" y="{y + 1:g}" width="{_CELL - 2}" height="{_ROW - 2}" fill="{fill}"{frame}/>'
    glyph = _text(x + _CELL / 2, y + 13, look.glyph, anchor="middle", fill=ink, weight="bold" if look.outside else "")
    return f"<g><title>{escape(f'{site}: {look.marked}')}</title>{box}{glyph}</g>"


def _text(x: float, y: float, text: str, anchor: str = "", fill: str = _INK, weight: str = "") -> str:
    more = "".join(f' {name}="{value}"' for name, value in (("text-anchor", anchor), ("font-weight", weight)) if value)
    return f'<text x="{x:g}" y="{y:g}" fill="{fill}"{more} xml:space="preserve">{escape(text)}</text>'
