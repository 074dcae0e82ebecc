"""What a capture told and left on the disk, as tests look at it."""

from pathlib import Path

from kernels.stages import Site
from store.errors import StoreError
from store.traces.hdf5 import open_store, partial_path
from workbench.capture.job import CaptureJob, CellReady
from workbench.capture.lockstep import capture
from workbench.cells.cell import cell_to_wire

LAYERS = 3
TOKENS = (3, 1, 4, 1, 5)


def events_of(job: CaptureJob) -> list:
    events = []
    capture(job, events.append)
    return events


def cells_of(events: list) -> list[dict]:
    return [cell_to_wire(event.cell) for event in events if isinstance(event, CellReady)]


def tensors(path: Path, partial: bool = False) -> dict[Site, bytes]:
    trace = open_store(path, partial)
    return {site: trace.read(site).tobytes() for site in trace.sites()}


def assert_nothing_wrong(folder: Path, expected: dict[str, dict[Site, bytes]]) -> None:
    """Whatever can be read is right; a final name holds everything."""
    for side, right in expected.items():
        path = folder / f"{side}.h5"
        if path.exists():
            assert tensors(path) == right
        if partial_path(path).exists():
            try:
                found = tensors(partial_path(path), partial=True)
            except StoreError:
                continue  # killed while HDF5 was at its tables: nothing can be read, nothing is taken from it
            assert found.items() <= right.items()


def has_layers(path: Path) -> bool:
    try:
        return open_store(path, partial=True).completed_layers > 0
    except StoreError:
        return False
