"""What stands where on the screen of the map, by the size of the terminal."""

from typing import NamedTuple

from workbench.app.map.model import MapModel
from workbench.app.map.view import STAGE_LABEL, height_of, width_of

PANELS = {180: 56, 112: 46, 0: 38}  # columns of the inspector beside the map, by how many there are at least in all
_LINES = 4  # around the map: verdict, status, legend, keys; where the inspector stands below, its two lines too
_INSPECTOR = 2
_CROWDED = 2  # layers in a column of each of two maps, at most


class Arrangement(NamedTuple):
    """panel : columns of the inspector beside the map, 0 below it. maps : that stand beside one another.

    shared : by how many layers a column of one character is; 0 where every cell has room for a digit and a sign.
    """

    panel: int
    stage_rows: bool
    maps: int
    shared: int = 0


def arrangement(width: int, height: int, model: MapModel, second: bool) -> Arrangement:
    """Put the inspector beside the map, below it only where the map is not whole there even with small cells.

    Small cells take a column for as many layers as it takes; not where layers are asked for as rows, which then scroll.
    second : whether a second map is asked for; it stands beside the first where it fits.
    """
    asked, layers = model.view.transposed, len(model.layer_axis)
    widest = next(columns for least, columns in PANELS.items() if width >= least)
    beside = tuple(columns for columns in PANELS.values() if columns <= widest)
    for maps in (2, 1) if second else (1,):
        for panels in (beside, (0,)):
            for panel in panels:
                room = height - _LINES - (0 if panel else _INSPECTOR)
                for rows in (True, False) if asked is None else (asked,):
                    high = asked is None and height_of(rows, model) > room and not rows
                    if width_of(rows, model) * maps <= width - panel and not high:
                        return Arrangement(panel, rows, maps)
            for panel in panels if asked is not False else ():
                if layers <= _room(width - panel, maps):
                    return Arrangement(panel, True, maps, 1)
        shared = -(-layers // _room(width, maps))
        if asked is not False and (maps == 1 or shared <= _CROWDED):
            return Arrangement(0, True, maps, shared)
    return Arrangement(0, stage_rows=False, maps=1)


def _room(width: int, maps: int) -> int:
    """Columns for small cells of each map; one on either side of them is for the brackets of the cursor."""
    return max(width // maps - STAGE_LABEL - 2, 1)
