"""What stands where on the screen of the map, by the size of the terminal."""

from typing import NamedTuple

from workbench.app.map.model import MapModel
from workbench.app.map.view import width_of

PANELS = {180: 56, 112: 46, 0: 38}  # columns of the inspector beside the map, by how many there are at least in all


class Arrangement(NamedTuple):
    """panel : columns of the inspector beside the map, 0 below it. maps : that stand beside one another."""

    panel: int
    stage_rows: bool
    maps: int


def arrangement(width: int, model: MapModel, second: bool) -> Arrangement:
    """Put the inspector beside the map if the map fits there whole, else below it; and a second map where one fits.

    second : whether one is asked for.
    """
    asked = model.view.transposed
    panel = next(columns for least, columns in PANELS.items() if width >= least)
    for maps in (2, 1) if second else (1,):
        for columns in (panel, 0):
            fitting = [rows for rows in (True, False) if width_of(rows, model) * maps <= width - columns]
            allowed = [rows for rows in fitting if asked in (None, rows)]
            if allowed:
                return Arrangement(columns, allowed[0], maps)
    return Arrangement(0, asked is not False, 1)
