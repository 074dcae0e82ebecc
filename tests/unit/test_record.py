"""Recording in another engine: complete files or none, and one sentence for whatever goes wrong."""

import json
import os
import signal
import sys

import numpy as np
import pytest

from kernels.forward import forward
from kernels.paths import numeric_path
from kernels.stages import Site
from store.open import open_artifact
from store.traces.open import open_trace
from tests.artifacts import tiny_gguf, tiny_safetensors
from tests.memory_model import spine
from workbench.__main__ import run
from workbench.record.recording import RecordError, record

ENGINE = os.environ.get("WORKBENCH_ENGINE_PYTHON")
needs_engine = pytest.mark.skipif(
    ENGINE is None, reason="WORKBENCH_ENGINE_PYTHON names no Python with llama-cpp-python, torch and transformers"
)
TOKENS = (5, 100, 7, 7, 31)
ARRAY = (
    "send(np.ones((2, 4), '<f4').tobytes(), kind='array', name='stage|0|ffn_up', dtype='<f4', shape=[2, 4]);"
    "send(b'{\"engine\": \"transformers\"}', kind='text', name='__meta__')"
)


def interpreter(folder, body):
    """A program that passes for a Python with an engine: it reads its job, sends frames, and does what `body` says."""
    path = folder / "python"
    path.write_text(f"""#!{sys.executable}
import json, os, signal, sys
import numpy as np
job = json.load(sys.stdin)
def send(payload=b"", **header):
    text = json.dumps(header | {{"bytes": len(payload)}}).encode()
    sys.stdout.buffer.write(len(text).to_bytes(4, "little") + text + payload)
    sys.stdout.buffer.flush()
{body}
""")
    path.chmod(0o755)
    return str(path)


def recorded(folder, body):
    output = folder / "out.npz"
    return record("transformers", {"tokens": [1, 2]}, {"tokens": [1, 2]}, output, interpreter(folder, body), quiet)


def quiet(done, total, text):
    pass


def test_a_recording_appears_when_it_is_whole(tmp_path):
    trace = recorded(tmp_path, f"{ARRAY}\nsend(kind='end')")
    assert trace.tokens == (1, 2)
    assert trace.settings == {"engine": "transformers"}
    assert np.array_equal(trace.read(Site(0, "ffn_up")), np.ones((2, 4)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.npz", "python"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (ARRAY, "ended before the trace was whole \\(it ended with exit code 0"),
        (f"{ARRAY}\nsys.exit(3)", "exit code 3: no message"),
        (
            f"{ARRAY}\nprint('x: GGML_ASSERT(n > 0) failed', file=sys.stderr)\nos.abort()",
            r"it was aborted by a library \(SIGABRT\): x: GGML_ASSERT\(n",
        ),
        (f"{ARRAY}\nos.kill(os.getpid(), {signal.SIGKILL:d})", r"it was killed \(SIGKILL\)"),
        (f"{ARRAY}\nsys.stdout.buffer.write(b'junk that is no frame at all')", "ended before"),
        (f"{ARRAY}\nsend(kind='end')\nsys.stdout.close()\nos._exit(4)", "exit code 4"),
        ("send(kind='error', text='no such \\x1b[31m layer')", r"could not record the trace: no such \\x1b\[31m layer"),
        (
            "send(kind='missing', text='torch')",
            "has no module torch; install torch transformers there, or give --python",
        ),
        ("send(kind='end')", "transformers gave a trace that cannot be read back"),
    ],
)
def test_what_goes_wrong_is_said_and_leaves_the_old_file(tmp_path, body, words):
    (tmp_path / "out.npz").write_bytes(b"the old one")
    with pytest.raises(RecordError, match=words):
        recorded(tmp_path, body)
    assert (tmp_path / "out.npz").read_bytes() == b"the old one"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.npz", "python"]


@pytest.mark.parametrize(("engine", "module"), [("llama.cpp", "llama_cpp"), ("transformers", "torch")])
def test_an_engine_that_is_not_installed_is_named(tmp_path, monkeypatch, capsys, engine, module):
    (tmp_path / f"{module}.py").write_text(f"raise ModuleNotFoundError(name={module!r})")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    tiny_gguf(tmp_path / "m.gguf")
    tiny_safetensors(tmp_path / "hf")
    model = tmp_path / ("m.gguf" if engine == "llama.cpp" else "hf")
    arguments = ["record", str(model), "-o", str(tmp_path / "o.npz"), "--tokens", "1,2", "--python", sys.executable]
    assert run(arguments) == 2
    assert f"has no module {module}; install " in capsys.readouterr().err
    assert not (tmp_path / "o.npz").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["m.gguf", "--engine", "transformers"], "m.gguf is gguf, which cannot be recorded with this engine"),
        (["hf", "--kv", "f16"], "--kv is no setting of transformers"),
        (["m.gguf", "--kv", "q8_0,f16,f16"], "give one type, or those of K and V with a comma, of f32, f16"),
        (["hf/model.safetensors"], "give the folder"),
        (["m.gguf", "-o", "m.gguf"], "m.gguf is one of the files that this command reads"),
        (["m.gguf", "--python", "nowhere"], "--python nowhere cannot be run"),
        (["m.gguf", "-o", "no/such/place.npz"], "cannot be written"),
    ],
)
def test_questions_that_cannot_be_answered(tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    tiny_gguf(tmp_path / "m.gguf")
    tiny_safetensors(tmp_path / "hf")
    assert run(["record", "-o", "o.npz", "--tokens", "1,2", *arguments]) == 2
    assert words in capsys.readouterr().err


def relative_rms(a, b):
    return np.linalg.norm(a.astype(np.float64) - b) / np.linalg.norm(b)


def worst_difference(trace, stages):
    return max(relative_rms(trace.read(site), stages[site]) for site in trace.sites())


def engine_trace(tmp_path, capsys, model, *options):
    output, tokens = tmp_path / "out.npz", ",".join(map(str, TOKENS))
    arguments = ["record", model, "-o", output, "--tokens", tokens, "--python", ENGINE, "--force", "--json", *options]
    assert run([str(argument) for argument in arguments]) == 0, capsys.readouterr().err
    summary = json.loads(capsys.readouterr().out)
    artifact = open_artifact(model)
    trace = open_trace(output).bind(TOKENS, artifact.config)
    assert summary["settings"] == trace.settings
    assert trace.settings["model_sha256"] == artifact.sha256()
    assert trace.not_carried == ()
    return trace, artifact


@needs_engine
@pytest.mark.parametrize("architecture", ["qwen2", "llama"])
def test_llama_cpp_computes_what_our_ggml_path_computes(tmp_path, capsys, architecture):
    tiny_gguf(tmp_path / "m.gguf", architecture)
    trace, artifact = engine_trace(tmp_path, capsys, tmp_path / "m.gguf")
    assert trace.observed["flash_attention"] == "off"
    assert trace.observed["type_k"] == trace.observed["type_v"] == "f32"
    ours = dict(forward(artifact, TOKENS, numeric_path("ggml")))
    assert {site.stage for site in ours.keys() - set(trace.sites())} == {"ffn_silu"}
    assert worst_difference(trace, ours) < 1e-6


@needs_engine
def test_the_settings_of_llama_cpp_take_effect_and_are_recorded(tmp_path, capsys):
    tiny_gguf(tmp_path / "m.gguf", type="Q4_0")
    trace, _ = engine_trace(tmp_path, capsys, tmp_path / "m.gguf", "--threads", 1)
    clean = {site: trace.read(site) for site in trace.sites()}
    cases = {
        ("--flash", "on"): {"flash": 1, "flash_attention": "on"},
        ("--flash", "auto", "--kv", "f16"): {"flash": -1, "kv": "f16", "flash_attention": "on", "type_k": "f16"},
        ("--flash", "on", "--kv", "f16,bf16"): {"kv": "f16,bf16", "type_k": "f16", "type_v": "bf16"},
        ("--kv", "f16"): {"kv": "f16", "type_v": "f16", "flash_attention": "off"},
        ("--repack",): {"repack": 1},
        ("--batch", "2"): {"n_ubatch": 2, "batches": (2, 2, 1)},
    }
    for options, facts in cases.items():
        trace, _ = engine_trace(tmp_path, capsys, tmp_path / "m.gguf", *options)
        told = {**trace.settings, **trace.observed}
        assert {name: told[name] for name in facts} == facts, options
        assert relative_rms(trace.read(Site(None, "lm_head")), clean[Site(None, "lm_head")]) < 5e-2
        same = all(np.array_equal(trace.read(site), values) for site, values in clean.items())
        assert not same or options[0] == "--batch", options  # whose size leaves every bit as it was in some builds


@needs_engine
@pytest.mark.parametrize(
    ("architecture", "dtype", "path", "limit"), [("qwen2", "float32", "f32", 2e-6), ("llama", "float64", "f64", 5e-7)]
)
def test_transformers_computes_what_our_float_paths_compute(tmp_path, capsys, architecture, dtype, path, limit):
    tiny_safetensors(tmp_path / "hf", architecture)
    trace, artifact = engine_trace(tmp_path, capsys, tmp_path / "hf", "--dtype", dtype)
    ours = dict(forward(artifact, TOKENS, numeric_path(path)))
    assert ours.keys() == set(trace.sites())
    assert all(trace.dtype(site) == dtype for site in trace.sites())
    assert all(trace.status(site) != "unmeasured" for site in spine(trace.layers))
    assert worst_difference(trace, ours) < limit


@needs_engine
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_run_in_16_bits_is_recorded_without_rounding_again_and_judged_by_what_16_bits_can_cause(
    tmp_path, capsys, dtype
):
    tiny_safetensors(tmp_path / "hf")
    trace, artifact = engine_trace(tmp_path, capsys, tmp_path / "hf", "--dtype", dtype)
    assert trace.settings["dtype"] == dtype
    for site in trace.sites():
        values = trace.read(site)
        if dtype == "float16":
            assert np.array_equal(values.astype(np.float16).astype(np.float32), values), site
        else:
            assert not (values.view(np.uint32) & 0xFFFF).any(), site
    wide = dict(forward(artifact, TOKENS, numeric_path("f64")))
    assert 0 < worst_difference(trace, wide) < (0.05 if dtype == "bfloat16" else 0.01)
    assert run(["bisect", str(tmp_path / "hf"), str(trace.path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["verdict"] == "numerics_only"


def test_a_type_that_transformers_is_not_recorded_in_is_refused(tmp_path, capsys):
    tiny_safetensors(tmp_path / "hf")
    assert run(["record", str(tmp_path / "hf"), "-o", str(tmp_path / "t.npz"), "--tokens", "1", "--dtype", "int8"]) == 2
    assert "float32, float64, bfloat16, float16" in capsys.readouterr().err.replace("'", "").replace("\n", " ")
