"""A sweep on processes that die: every line is there once, and says what one process says alone."""

import logging
import multiprocessing
import os
import signal

import pytest

from kernels.errors import WorkbenchError
from workbench.demo import MODEL, make_copy
from workbench.sweep import cluster
from workbench.sweep.planning import plan
from workbench.sweep.question import ask
from workbench.sweep.running import Here, run
from workbench.sweep.tally import Tally

OF_THE_RUN = ("seconds", "processor_seconds", "worker")


def facts(tally_of, steps):
    lines = [step.line for step in steps if step.line is not None]
    assert tally_of.done == len(lines)
    return sorted(str({key: line[key] for key in line if key not in OF_THE_RUN}) for line in lines)


@pytest.mark.filterwarnings("default")
def test_a_killed_worker_loses_nothing_and_changes_no_line(tmp_path, monkeypatch):
    pytest.importorskip("distributed", reason="the extra [cluster] is not installed")
    monkeypatch.setattr(logging.root, "handlers", [])
    make_copy(tmp_path / "b.apr", "scaled")
    (tmp_path / "ids.txt").write_text("482,803,10\n67,14\n")
    todo = plan(ask((MODEL, tmp_path / "b.apr"), ("f32", "f32")), "layer", tmp_path / "ids.txt", of_ids=True)
    alone, shared = Tally(), Tally()
    expected = facts(alone, list(run(todo, Here(), tmp_path / "alone.jsonl", False, alone)))
    steps = []
    for step in run(todo, cluster.Cluster(workers=1), tmp_path / "shared.jsonl", False, shared):
        steps.append(step)
        if step.units == 2:
            (worker,) = (child for child in multiprocessing.active_children() if "Dask" in child.name)
            os.kill(worker.pid, signal.SIGKILL)
    assert facts(shared, steps) == expected


def test_without_the_extra_a_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setattr(cluster, "distributed", None)
    assert not cluster.available()
    with pytest.raises(WorkbenchError, match=r"pip install 'layer-workbench\[cluster\]'"):
        cluster.Cluster(workers=2)
