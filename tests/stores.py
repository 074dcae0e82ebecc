"""Small stores of made-up runs: what is written is known, so whatever is read back can be checked."""

from pathlib import Path

import numpy as np

from kernels.config import ModelConfig
from kernels.models import all_stages, execution_order
from kernels.stages import SPINE, Site
from store.traces.hdf5_writer import TraceWriter
from store.traces.run import RunRecord

TOKENS = (3, 1, 4, 1, 5)
LAYERS = 3
MISSING = "qkv_bias"  # a stage that the made-up model does not have


def run_record(layers: int = LAYERS, **changes) -> RunRecord:
    facts = {
        "artifact": "/models/a.gguf",
        "format": "gguf",
        "size": 1234,
        "sha256": "5" * 64,
        "numeric_path": "f32",
        "tokens": TOKENS,
        "prompt": "drei",
        "settings": {"kv": "float32"},
        "config": ModelConfig("qwen2", layers, 8, 16, 2, 1, 4, 32, 1e-6, 1e4, "neox", False),
        "versions": {"layer-workbench": "1"},
        "machine": {"processor": "any", "cpus": 2},
        "created": "2026-01-01T00:00:00.000+00:00",
    }
    return RunRecord(**facts | changes)


def stage_values(site: Site, dtype: type = np.float32, rows: int = len(TOKENS)) -> np.ndarray:
    seed = (site.layer or 0) * 100 + all_stages().index(site.stage)
    return np.random.default_rng(seed).standard_normal((rows, 8 + all_stages().index(site.stage))).astype(dtype)


class Interrupted(Exception):  # noqa: N818 - what happened, not what is wrong
    pass


def write_store(path: Path, run: RunRecord | None = None, dtype: type = np.float32, stop_at: int | None = None) -> int:
    """Write, or resume, the store of a run whose every tensor is stage_values; returns how many layers were resumed.

    stop_at : raise Interrupted instead of writing that stage of the whole run.
    """
    run = run or run_record()
    with TraceWriter(path, run) as writer:
        resumed, output = writer.completed_layers, None
        state = writer.resume_state()
        if resumed:
            expected = stage_values(Site(resumed - 1, "post_ffn_residual"), dtype)
            assert state.dtype == dtype
            assert np.array_equal(state, expected)
        for number, site in enumerate(execution_order(run.config)):
            done = resumed and (site.stage == "embedding" or (site.layer is not None and site.layer < resumed))
            if site.stage == MISSING or done:
                continue
            if number == stop_at:
                raise Interrupted
            values = output if site.stage == SPINE[-1] else stage_values(site, dtype)
            stored = writer.write(site, values)
            assert stored.dtype == np.float32
            output = values
            if site.stage == SPINE[-1]:
                writer.finish_layer(site.layer)
        assert not path.exists() or path.stat().st_ino != writer.partial.stat().st_ino
        writer.finish()
    return resumed


def expected_values(site: Site, dtype: type = np.float32) -> np.ndarray:
    stored = Site(site.layer, "post_ffn_residual") if site.stage == SPINE[-1] else site
    return stage_values(stored, dtype).astype(np.float32)


def place(site: Site) -> str:
    """Where a stage lies in a store."""
    return site.stage if site.layer is None else f"layers/{site.layer:03d}/{site.stage}"
