"""The forward of the models that were there first: not a bit may change while the code around it does."""

import json

import pytest

from tests.golden.record_stage_hashes import HASHES, RUNS, elementary_functions, stage_hashes

RECORDED = json.loads(HASHES.read_text())
UP_TO = "layer 0 qkv_bias"  # what other elementary functions leave as it is


@pytest.mark.parametrize("threads", ["1", "2"])
@pytest.mark.parametrize("run", RUNS)
def test_every_stage_has_the_bits_that_it_had(run, threads, monkeypatch):
    monkeypatch.setenv("WORKBENCH_THREADS", threads)
    found, recorded = stage_hashes(run), RECORDED[run]
    if elementary_functions() != RECORDED["elementary functions"]:
        sites = list(recorded)
        known = sites[: sites.index(UP_TO if UP_TO in recorded else "layer 0 qkv_matmul") + 1]
        found, recorded = ({site: all[site] for site in known} for all in (found, recorded))
    assert found == recorded
