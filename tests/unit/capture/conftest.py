"""A pair of small models to capture, with a cache of its own."""

import subprocess
from dataclasses import replace

import pytest

from kernels.machine import cache
from tests.artifacts import tiny_apr, tiny_gguf, tiny_safetensors
from tests.captures import LAYERS, TOKENS, tensors
from workbench.capture.job import CaptureJob
from workbench.capture.lockstep import capture
from workbench.machine import child_process
from workbench.session.session import Side


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """The same model, quantized and not, and one that is shallower, on paths that round and that do not."""
    folder = tmp_path_factory.mktemp("models")
    tiny_gguf(folder / "q8.gguf", type="Q8_0", layers=LAYERS)
    tiny_safetensors(folder / "hf", layers=LAYERS)
    tiny_apr(folder / "shallow.apr", type="Q8_0", layers=LAYERS - 1)
    tiny_gguf(folder / "llama.gguf", arch="llama", layers=LAYERS)
    return folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(cache.folder().parents[1]))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
def real_processes(monkeypatch):
    monkeypatch.setattr(child_process, "subprocess", subprocess)


@pytest.fixture
def job(models, tmp_path):
    a, b = Side(str(models / "q8.gguf"), "ggml"), Side(str(models / "hf"), "f64")
    return CaptureJob(a, b, TOKENS, "drei", tmp_path / "session")


@pytest.fixture
def expected(job, tmp_path):
    capture(replace(job, folder=tmp_path / "whole"), lambda event: None)
    return {side: tensors(tmp_path / "whole" / f"{side}.h5") for side in "ab"}
