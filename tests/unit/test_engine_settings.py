"""Whole forwards with llama.cpp's settings beside its own, bit for bit (golden/record_engine_settings.py).

What is kept of a recording is a digest of every stage: builds for AVX2 and AVX-512 of llama-cpp-python 0.3.36.
"""

import json
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from kernels.forward import forward
from kernels.paths import numeric_path
from tests.artifacts import tiny_model
from tests.golden.record_engine_settings import CASES, MODELS, short, tokens_of

RECORDED = json.loads((Path(__file__).parents[1] / "golden/engine-settings.json").read_text())


@cache
def model_of(name):
    arch, type, sizes = MODELS[name]
    return tiny_model(arch, type, **sizes)


@pytest.mark.parametrize(("case", "build"), product(CASES, RECORDED))
def test_every_stage_has_the_bits_of_the_engine(case, build):
    name, count, _ = CASES[case]
    recorded = RECORDED[build][case]
    run = forward(model_of(name), tokens_of(count), numeric_path(recorded["path"]))
    ours = {f"{site.layer} {site.stage}": short(np.asarray(values)) for site, values in run}
    assert {"0 attention", "0 delta", "0 scan"} & ours.keys()
    known = {stage: recorded["stages"].get(stage, bits) for stage, bits in ours.items()}
    assert [stage for stage, bits in ours.items() if known[stage] != bits] == []
