"""A pair without models: cells from random tensors with a planted fault, and a capture that says what it is told."""

import queue
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from kernels.config import ModelConfig
from kernels.measures import LogitAgreement
from kernels.metrics import profile
from kernels.models import all_stages
from kernels.stages import SPINE, Site
from store.traces.hdf5_writer import TraceWriter
from store.traces.run import RunRecord
from tests.memory_model import spine
from workbench.bisect.verdict import Bisection, Verdict
from workbench.capture.job import CellReady, Finished, Progress, SideReady
from workbench.cells.cell import Cell
from workbench.session.session import Session, SessionSpec, Side

TOKENS = (1, 5, 9, 2)
CHANNELS = 8
FAULTY = Site(2, "ffn_gate")


def config(layers: int = 4) -> ModelConfig:
    return ModelConfig("qwen2", layers, CHANNELS, 16, 2, 1, 4, 32, 1e-6, 1e4, "neox", False)


def run_record(name: str = "a.gguf", layers: int = 4, path: str = "ggml", **changes) -> RunRecord:
    facts = {
        "artifact": f"/models/{name}",
        "format": "gguf",
        "size": 1000,
        "sha256": "0" * 64,
        "numeric_path": path,
        "tokens": TOKENS,
        "prompt": None,
        "settings": {},
        "config": config(layers),
        "versions": {"python": "3"},
        "machine": {"cpus": 2},
        "created": "2026-01-01T00:00:00.000+00:00",
    }
    return RunRecord(**facts | changes)


def bisected(verdict: Verdict = "numerics_only", sha256: str = "0" * 64) -> dict[str, Any]:
    """What a session keeps of a bisection of two files with this hash, without its words."""
    sides = {side: {"path": f"{side}.gguf", "format": "gguf", "sha256": sha256} for side in ("a", "b")}
    return Bisection(verdict, None, None, (), None, ()).to_json() | {"tokens": list(TOKENS), "prompt": None} | sides


def values(site: Site) -> np.ndarray:
    seed = (site.layer or 0) * 100 + all_stages().index(site.stage)
    return np.random.default_rng(seed).normal(size=(len(TOKENS), CHANNELS)).astype(np.float32)


def cell(site: Site, error: float = 1e-3) -> Cell:
    """A cell whose A is B with a relative error of `error`; none at all gives an identical cell."""
    b = values(site)
    a = (b * np.float32(1 + error)).astype(np.float32)
    logits = None
    if site.stage == "lm_head":
        logits = LogitAgreement(np.full(len(TOKENS), 0.01), np.array([True] * 3 + [False]), np.full(len(TOKENS), 0.8))
    status = "identical" if error == 0 else "ok"
    return Cell(site, status, None, a.shape, profile(a, b), tuple(range(len(TOKENS))), logits)


def cells(layers: int = 4, faulty: Site = FAULTY) -> list[Cell]:
    """Identical up to the faulty cell, which is three times too large, then slightly different."""
    return [cell(site, error) for site, error in errors_of(layers, faulty)]


def errors_of(layers: int, faulty: Site) -> Iterator[tuple[Site, float]]:
    order = spine(layers)
    place = order.index(faulty)
    return zip(order, [0.0] * place + [2.0] + [1e-3] * (len(order) - place - 1), strict=True)


class FakeCapture:
    """Says the events that are put into it; the end is None, or `cancel`."""

    def __init__(self, *events: object) -> None:
        self.queue: queue.Queue[object] = queue.Queue()
        self.cancelled = False
        self.say(*events)

    def say(self, *events: object) -> None:
        for event in events:
            self.queue.put(event)

    def events(self) -> Iterator[object]:
        while (event := self.queue.get()) is not None:
            yield event

    def cancel(self) -> None:
        self.cancelled = True
        self.queue.put(None)


def write_traces(
    session: Session, layers: int = 4, faulty: Site = FAULTY, last_only: Collection[tuple[str, Site]] = ()
) -> None:
    """Store the tensors of `cells` as both sides' traces, as a capture would."""
    errors = dict(errors_of(layers, faulty))
    for side in "ab":
        with TraceWriter(session.trace_path(side), run_record(f"{side}.gguf", layers)) as writer:
            for site in spine(layers):
                scale = np.float32(1 + errors[site]) if side == "a" else np.float32(1)
                stored = values(site) * scale
                writer.write(site, stored[-1:] if (side, site) in last_only else stored)
                if site.stage == SPINE[-1]:
                    writer.finish_layer(site.layer)
            writer.finish()


def new_session(folder: Path, **view: object) -> Session:
    a, b = Side("/models/a.gguf", "ggml"), Side("/models/b.apr", "apr")
    return Session.create(folder, SessionSpec(a, b, TOKENS, view=view))


def whole_capture(layers: int = 4) -> list[object]:
    opened = [SideReady("a", run_record("a.gguf", layers)), SideReady("b", run_record("b.apr", layers, "apr"))]
    return [Progress("open", 0, 2, "a.gguf"), *opened, *(CellReady(c) for c in cells(layers)), Finished(1.5), None]
