"""Pairs that contracts are checked on."""

import pytest

from tests.artifacts import tiny_model
from tests.contracts import IDS
from tests.gguf_files import write_gguf
from tests.hf_files import write_safetensors
from workbench.__main__ import run
from workbench.demo import MODEL, make_copy


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A healthy APR copy of the shipped model, two with a fault, and a trace of the original."""
    folder = tmp_path_factory.mktemp("check")
    for name, fault in (("healthy", None), ("swapped", "gate_up_swapped"), ("eps", "rms_norm_eps")):
        make_copy(folder / f"{name}.apr", fault)
    assert run(["trace", str(MODEL), "-o", str(folder / "a.h5"), "--tokens", IDS]) == 0
    return folder


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A small model as a folder and as GGUF, which keeps settings in single precision."""
    folder, model = tmp_path_factory.mktemp("small"), tiny_model("qwen2")
    write_safetensors(folder / "a", model)
    write_gguf(folder / "b.gguf", model)
    return folder
