"""The store: what is written is read back, and a crash never leaves a wrong tensor."""

import json
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.stages import Site
from store.errors import StoreError
from store.traces.hdf5 import open_store
from store.traces.hdf5_index import BusyStoreError
from store.traces.hdf5_writer import TraceWriter
from store.traces.run import RunRecord
from tests.memory_model import spine
from tests.stores import LAYERS, MISSING, TOKENS, Interrupted, expected_values, place, run_record, write_store

ROOT = Path(__file__).parents[2]
SITES = [site for site in spine(LAYERS) if site.stage != MISSING]
STAGES_IN_ALL = len(spine(LAYERS))


def assert_right(trace, dtype=np.float32):
    for site in trace.sites():
        assert np.array_equal(trace.read(site), expected_values(site, dtype)), site


# What is written is read back


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_mapped_tensors_equal_what_h5py_reads_and_what_was_written(tmp_path, dtype):
    path = tmp_path / "run.h5"
    write_store(path, dtype=dtype)
    trace = open_store(path)
    assert trace.sites() == SITES
    assert_right(trace, dtype)
    with h5py.File(path) as file:
        for site in SITES:
            dataset = file[place(site)]
            assert dataset.dtype == "<f4"
            assert dataset.chunks is None
            assert np.array_equal(dataset[()], trace.read(site))
            assert trace.read(site).flags.aligned
            assert trace.read(site).flags.writeable, "kernels are compiled for writable arrays"
        assert file["layers/000/layer_output"] == file["layers/000/post_ffn_residual"], "one copy, two names"


def test_writing_to_a_tensor_that_was_read_does_not_reach_the_file(tmp_path):
    path = tmp_path / "run.h5"
    write_store(path)
    open_store(path).read(Site(1, "ffn_up"))[:] = 7
    assert_right(open_store(path))


def test_an_open_trace_keeps_its_values_when_the_store_is_replaced(tmp_path):
    path = tmp_path / "run.h5"
    write_store(path)
    trace = open_store(path)
    run = run_record(layers=1, sha256="6" * 64)
    write_store(path, run)
    assert_right(trace)
    assert open_store(path).run == run


def test_provenance_is_plain_attributes(tmp_path):
    run = run_record(prompt="def add(a, b):\n\té")
    write_store(tmp_path / "run.h5", run)
    with h5py.File(tmp_path / "run.h5") as file:
        found = {name: v.decode() if isinstance(v, bytes) else v for name, v in file.attrs.items()}
        assert found["schema"] == 1
        assert found["artifact_path"] == run.artifact
        assert found["artifact_size"] == 1234
        assert found["artifact_sha256"] == run.sha256
        assert found["path"] == "f32"
        assert found["token_ids"].tolist() == list(TOKENS)
        assert found["prompt"] == run.prompt
        assert json.loads(found["settings"]) == run.settings
        assert json.loads(found["versions"]) == run.versions
        assert json.loads(found["machine"]) == run.machine
        assert found["created"] == run.created
    assert open_store(tmp_path / "run.h5").run == run


@settings(max_examples=30)
@given(
    prompt=st.none() | st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=200),
    tokens=st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=50),
    extra=st.dictionaries(st.text(max_size=5), st.integers() | st.booleans() | st.text(max_size=9), max_size=3),
)
def test_any_run_record_comes_back(tmp_path_factory, prompt, tokens, extra):
    path = tmp_path_factory.mktemp("run") / "run.h5"
    run = run_record(layers=1, prompt=prompt, tokens=tuple(tokens), settings=extra)
    assert RunRecord.from_json(json.loads(json.dumps(run.to_json()))) == run
    write_store(path, run)
    assert open_store(path).run == run


def test_long_texts_and_long_prompts_lie_in_datasets(tmp_path):
    run = run_record(layers=1, prompt="é" * 100_000, tokens=tuple(range(50_000)), artifact="/m/\udcff.gguf")
    write_store(tmp_path / "run.h5", run)
    assert open_store(tmp_path / "run.h5").run == run


def test_a_stage_is_there_or_not_in_the_model_or_not_captured(tmp_path):
    path = tmp_path / "run.h5"
    write_store(path)
    with h5py.File(path, "r+") as file:
        del file["layers/001/ffn_up"], file["final_norm"]
    trace = open_store(path)
    assert trace.status(Site(1, "ffn_gate")) == "ok"
    assert trace.status(Site(1, MISSING)) == "absent"
    assert trace.status(Site(LAYERS, "ffn_up")) == "absent"
    assert trace.status(Site(1, "ffn_up")) == trace.status(Site(None, "final_norm")) == "unmeasured"
    with pytest.raises(StoreError, match="holds no tensor of layer 1 ffn_up"):
        trace.read(Site(1, "ffn_up"))


@pytest.mark.parametrize(
    ("rows", "positions", "expected"),
    [(5, None, tuple(range(5))), (1, None, None), (7, None, None), (1, [4], (4,)), (2, [0, 4], (0, 4))],
)
def test_rows_are_not_taken_for_tokens_that_nothing_names(tmp_path, rows, positions, expected):
    path = tmp_path / "run.h5"
    write_store(path)
    with h5py.File(path, "r+") as file:
        del file["lm_head"]
        file["lm_head"] = np.ones((rows, 9), np.float32)
        if positions is not None:
            file["lm_head"].attrs["positions"] = positions
    trace = open_store(path)
    assert trace.positions(Site(None, "lm_head")) == expected
    assert trace.positions(Site(0, "ffn_up")) == tuple(range(5))


# Crashes


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("stop_at", [0, 1, 8, 16, 17, 18, 30, 33, 34, 48, 49, 50])
def test_a_resumed_store_has_the_bytes_of_one_written_at_a_stretch(tmp_path, dtype, stop_at):
    whole, path = tmp_path / "whole.h5", tmp_path / "run.h5"
    write_store(whole, dtype=dtype)
    with pytest.raises(Interrupted):
        write_store(path, dtype=dtype, stop_at=stop_at)
    assert not path.exists()
    partial = open_store(tmp_path / "run.h5.partial", partial=True)
    layers = partial.completed_layers
    assert layers == min((stop_at - 1) // 16, LAYERS) if stop_at else layers == 0
    assert len(partial.sites()) == (1 + 15 * layers if layers else 0)
    assert_right(partial, dtype)
    assert write_store(path, run_record(created="later"), dtype=dtype) == layers
    assert path.read_bytes() == whole.read_bytes()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["run.h5", "whole.h5"]


@pytest.mark.parametrize(
    "change",
    [
        {"sha256": "6" * 64},
        {"numeric_path": "ggml"},
        {"tokens": (3, 1, 4, 1, 6)},
        {"settings": {"kv": "float16"}},
        {"versions": {"layer-workbench": "2"}},
        {"machine": {"processor": "another"}},
    ],
)
def test_the_partial_of_another_run_is_not_resumed(tmp_path, change):
    path = tmp_path / "run.h5"
    with pytest.raises(Interrupted):
        write_store(path, stop_at=40)
    assert write_store(path, run_record(**change)) == 0
    assert open_store(path).run == run_record(**change)


@pytest.mark.parametrize(("layer", "kept"), [(0, 0), (1, 1)])
def test_a_layer_whose_bytes_have_changed_is_computed_again(tmp_path, layer, kept):
    path, partial = tmp_path / "run.h5", tmp_path / "run.h5.partial"
    with pytest.raises(Interrupted):
        write_store(path, stop_at=40)
    with h5py.File(partial) as file:
        offset = file[f"layers/{layer:03d}/ffn_up"].id.get_offset()
    content = bytearray(partial.read_bytes())
    content[offset + 9] ^= 1
    partial.write_bytes(content)
    assert write_store(path) == kept
    assert_right(open_store(path))


def test_zeros_of_an_unfinished_layer_are_never_taken_for_data(tmp_path):
    path, partial = tmp_path / "run.h5", tmp_path / "run.h5.partial"
    with pytest.raises(Interrupted):
        write_store(path, stop_at=40)
    with h5py.File(partial, "r+") as file:
        del file["layers/002"]
        for site in (site for site in SITES if site.layer == 2):
            file.create_dataset(f"layers/002/{site.stage}", data=np.zeros((5, 8), np.float32))
    assert open_store(partial, partial=True).status(Site(2, "ffn_up")) == "unmeasured"
    assert write_store(path) == 2
    assert_right(open_store(path))


def test_an_unreadable_partial_is_written_anew(tmp_path):
    (tmp_path / "run.h5.partial").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(50))
    assert write_store(tmp_path / "run.h5") == 0
    assert_right(open_store(tmp_path / "run.h5"))


def test_a_store_cannot_be_finished_before_its_last_layer(tmp_path):
    with pytest.raises(StoreError, match="0 of 3 layers"), TraceWriter(tmp_path / "run.h5", run_record()) as writer:
        writer.finish()
    assert not (tmp_path / "run.h5").exists()


def test_an_unfinished_store_is_not_opened_as_a_trace(tmp_path):
    path, partial = tmp_path / "run.h5", tmp_path / "run.h5.partial"
    with pytest.raises(Interrupted):
        write_store(path, stop_at=40)
    with pytest.raises(StoreError, match=r"unfinished .*trace again to complete it"):
        open_store(path)
    with pytest.raises(StoreError, match=r"unfinished \(2 of 3 layers\); trace again"):
        open_store(partial)
    partial.rename(path)
    with pytest.raises(StoreError, match=r"unfinished \(2 of 3 layers\)"):
        open_store(path)


FULL_DISK = """
import resource, sys
from store.errors import StoreError
from store.traces.open import open_trace
from tests.stores import write_store
from pathlib import Path
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    write_store(Path(sys.argv[1]))
except StoreError as error:
    print(error)
    sys.exit(3)
"""


def test_a_full_disk_gives_one_sentence_and_keeps_finished_layers(tmp_path):
    write_store(tmp_path / "whole.h5")
    size = (tmp_path / "whole.h5").stat().st_size
    kept = []
    for limit in (100, 5000, *(65536 + size * share // 10 for share in (1, 3, 5, 7, 9))):
        path = tmp_path / f"{limit}.h5"
        done = subprocess.run(
            [sys.executable, "-c", FULL_DISK, path, str(limit)], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 3, done.stderr
        assert done.stderr == ""
        assert "cannot be written (File too large); make room" in done.stdout
        assert done.stdout.count("\n") == 1
        assert not path.exists()
        kept.append(write_store(path))
        assert path.read_bytes() == (tmp_path / "whole.h5").read_bytes()
    assert kept[0] == 0
    assert kept[-1] >= 2, "finished layers are kept"


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(StoreError, match=r"nowhere/run.h5 cannot be written \(No such file or directory\)"):
        write_store(tmp_path / "nowhere" / "run.h5")


SLOW_WRITER = """
import sys
from pathlib import Path
from store.traces.hdf5_writer import TraceWriter
from tests.stores import run_record
with TraceWriter(Path(sys.argv[1]), run_record()):
    print("writing", flush=True)
    sys.stdin.read()
"""


def test_two_processes_never_write_one_store(tmp_path):
    path = tmp_path / "run.h5"
    command = [sys.executable, "-c", SLOW_WRITER, path]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"writing\n"
        with pytest.raises(BusyStoreError, match="is being written by another process"):
            write_store(path)
        other.stdin.close()
        assert other.wait() == 0
    assert write_store(path) == 0


def test_a_writer_whose_partial_was_replaced_does_not_give_the_other_ones_its_final_name(tmp_path):
    path, partial = tmp_path / "run.h5", tmp_path / "run.h5.partial"
    partial_of_another = b"not complete"

    def replace():
        partial.unlink()
        partial.write_bytes(partial_of_another)

    with TraceWriter(path, run_record(layers=1)) as writer:
        for site in spine(1):
            writer.write(site, expected_values(site))
        writer.finish_layer(0)
        replace()
        with pytest.raises(StoreError, match="replaced by another process"):
            writer.finish()
    assert not path.exists()
    assert partial.read_bytes() == partial_of_another
