"""The map as a picture that needs nothing but itself: rectangles and text in whatever monospace font there is."""

from collections.abc import Mapping
from html import escape

from kernels.stages import LAYER_STAGES, STAGES, Site
from workbench.heat import LEGEND, PALETTE, Look

_CELL, _ROW, _LEFT, _TOP, _LETTER = 22, 18, 150, 48, 7.3  # pixels
_PLAIN, _INK, _PAPER = "#dddddd", "#1a1a1a", "#ffffff"
_LIGHT_TEXT_BELOW = 4  # levels darker than this carry white glyphs


def map_svg(looks: Mapping[Site, Look], title: str) -> str:
    """Draw the cells, stages as rows and layers as columns, whole-model stages at the first or the last layer."""
    layers = sorted({site.layer for site in looks if site.layer is not None})
    columns = {layer: n for n, layer in enumerate(layers)}
    width = max(_LEFT + _CELL * max(len(layers), 1) + 20, round(_LETTER * max(len(title), len(LEGEND))) + 20)
    height = _TOP + _ROW * len(STAGES) + 40
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'font-family="monospace" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="{_PAPER}"/>',
        _text(10, 20, title, weight="bold"),
        *(_text(_middle(n), _TOP - 6, str(layer), anchor="middle") for layer, n in columns.items()),
    ]
    for row, stage in enumerate(STAGES):
        y = _TOP + row * _ROW
        parts.append(_text(_LEFT - 8, y + 13, stage, anchor="end"))
        for site in (site for site in looks if site.stage == stage):
            column = columns[site.layer] if site.layer is not None else _whole_model_column(stage, len(layers))
            parts.append(_cell(_LEFT + column * _CELL, y, looks[site], site))
    parts += [_text(10, height - 14, LEGEND), "</svg>"]
    return "\n".join(parts) + "\n"


def _whole_model_column(stage: str, layers: int) -> int:
    return 0 if STAGES.index(stage) < STAGES.index(LAYER_STAGES[0]) else max(layers - 1, 0)


def _cell(x: float, y: float, look: Look, site: Site) -> str:
    fill = _PLAIN if look.level is None else PALETTE[look.level]
    ink = _PAPER if look.level is not None and look.level < _LIGHT_TEXT_BELOW else _INK
    frame = f' stroke="{_INK}" stroke-width="2"' if look.outside else ""
    box = f'<rect x="{x + 1}" y="{y + 1}" width="{_CELL - 2}" height="{_ROW - 2}" fill="{fill}"{frame}/>'
    glyph = _text(x + _CELL / 2, y + 13, look.glyph, anchor="middle", fill=ink, weight="bold" if look.outside else "")
    return f"<g><title>{escape(f'{site}: {look.marked}')}</title>{box}{glyph}</g>"


def _middle(column: int) -> float:
    return _LEFT + column * _CELL + _CELL / 2


def _text(x: float, y: float, text: str, anchor: str = "", fill: str = _INK, weight: str = "") -> str:
    more = "".join(f' {name}="{value}"' for name, value in (("text-anchor", anchor), ("font-weight", weight)) if value)
    return f'<text x="{x:g}" y="{y:g}" fill="{fill}"{more} xml:space="preserve">{escape(text)}</text>'
