"""Record digests of what llama.cpp computes with settings of its own: engine-settings.json, bit by bit of every stage.

usage: python -m tests.golden.record_engine_settings AVX2 AVX512 (interpreters that have llama-cpp-python 0.3.36, built
without and with AVX-512)
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from store.traces.open import open_trace
from tests.artifacts import tiny_gguf
from tests.random_weights import digest

GOLDEN = Path(__file__).parent
SIZES = {"heads": 2, "kv_heads": 1, "hidden": 64, "head_dim": 64, "ffn": 64, "vocab": 64, "layers": 2, "seed": 3}
WIDE = {"heads": 4, "kv_heads": 2, "layers": 1, "vocab": 64, "seed": 3}
MODELS = {
    "llama": ("llama", "Q4_0", SIZES),
    "qwen2": ("qwen2", "Q4_K", WIDE),
    "gemma2": ("gemma2", "Q4_0", SIZES | {"tied": True}),
    "gpt_oss": ("gpt_oss", "MXFP4", SIZES),
    # what is kept of every channel fills more than the chains of a sum, and not whole ones
    "falcon_h1": ("falcon_h1", "F32", SIZES | {"head_dim": 72, "layers": 1}),
    "qwen35": ("qwen35", "Q8_0", SIZES),
    "bf16": ("llama", "BF16", SIZES | {"hidden": 576, "ffn": 128}),  # more than a chunk of columns
    "deepseek2": ("deepseek2", "F32", SIZES | {"head_dim": 48, "heads": 1}),
}
DEFAULT = {"repack": True, "flash": "auto", "kv": "f16"}  # llama.cpp's own
HALVES = {"repack": False, "flash": "off", "kv": "f16"}
CLEAN = HALVES | {"kv": "f32"}
# Of each recording: model, number of tokens, settings; tokens are i * 7 % 64.
CASES = {
    f"{model}, {name}, {count} tokens": (model, count, settings)
    for model, name, counts, settings in (
        ("llama", "default", (7, 23, 70), DEFAULT),
        ("llama", "halves", (1, 23), HALVES),
        ("llama", "half keys", (23,), HALVES | {"kv": "f16,f32"}),
        ("llama", "batches of 16", (23,), DEFAULT | {"batch": 16}),
        ("llama", "clean batches of 16", (33,), CLEAN | {"batch": 16}),  # the last has one token
        ("llama", "halves, batches of 16", (33,), HALVES | {"batch": 16}),
        ("qwen2", "default", (7, 23), DEFAULT),
        ("qwen2", "tiled", (23,), CLEAN),
        ("gemma2", "default", (23, 70), DEFAULT),
        ("gpt_oss", "default", (7, 70), DEFAULT),
        ("falcon_h1", "clean", (7,), CLEAN),
        ("qwen35", "clean", (7,), CLEAN),
        ("qwen35", "clean batches of 3", (7,), CLEAN | {"batch": 3}),
        ("bf16", "clean", (1, 7), CLEAN),
        ("deepseek2", "clean", (7,), CLEAN),
        ("deepseek2", "default", (7,), DEFAULT),
    )
    for count in counts
}
_RUN = """
import json, sys
import numpy as np
sys.path.insert(0, sys.argv[1])
import llama_cpp_script as script
class Parent:
    def __init__(self): self.arrays = {}
    def send(self, payload=b"", **header):
        if header["kind"] == "array":
            self.arrays[header["name"]] = np.frombuffer(payload, header["dtype"]).reshape(header["shape"])
        elif header["kind"] == "text":
            self.arrays[header["name"]] = np.array(payload.decode())
for job in json.load(sys.stdin):
    parent = Parent()
    script.run(job, parent)
    meta = {"model": job["name"], "architecture": job["architecture"], "tokens": job["tokens"]}
    parent.arrays["__meta__"] = np.array(json.dumps(meta | json.loads(str(parent.arrays["__meta__"]))))
    np.savez(job["output"], **parent.arrays)
"""


def short(values: np.ndarray) -> str:
    """Enough of a digest."""
    return digest(values)[:12]


def tokens_of(count: int) -> tuple[int, ...]:
    """What is run."""
    return tuple(i * 7 % 64 for i in range(count))


def recorded(python: str, folder: Path) -> dict[str, dict[str, object]]:
    """Of every case the path that its trace is checked with, and a digest of every stage."""
    from workbench.pair.llama_settings import settings_of

    models = {name: tiny_gguf(folder / f"{name}.gguf", own[0], own[1], **own[2]) for name, own in MODELS.items()}
    jobs = [
        {"threads": 2, "batch": 512, **settings, "model": str(folder / f"{model}.gguf"), "name": model}
        | {"architecture": MODELS[model][0], "tokens": tokens_of(count), "output": str(folder / f"{place}.npz")}
        for place, (model, count, settings) in enumerate(CASES.values())
    ]
    script = str(Path(__file__).parents[2] / "workbench/record")
    subprocess.run([python, "-c", _RUN, script], input=json.dumps(jobs).encode(), check=True)
    found = {}
    for job, case in zip(jobs, CASES, strict=True):
        trace = open_trace(Path(str(job["output"]))).bind(tokens_of(CASES[case][1]), models[CASES[case][0]].config)
        stages = {
            f"{site.layer} {site.stage}": short(np.asarray(trace.read(site)))
            for site in trace.sites()
            if trace.status(site) == "ok"
        }
        found[case] = {"path": settings_of(trace).path, "stages": stages}
    return found


if __name__ == "__main__":
    answers = {}
    for build, python in zip(("AVX2", "AVX-512"), sys.argv[1:], strict=True):
        with tempfile.TemporaryDirectory() as name:
            answers[build] = recorded(python, Path(name))
    (GOLDEN / "engine-settings.json").write_text(json.dumps(answers, indent=0) + "\n")
