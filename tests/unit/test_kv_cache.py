"""Quantized KV caches of llama.cpp, beside recordings of the engine itself.

golden/llama-cpp-kv-*.npz: `workbench record` of the model below with `--flash on --kv q8_0` (q4_0), llama-cpp-python
0.3.36, compressed again.
"""

from pathlib import Path

import numpy as np
import pytest

from kernels.forward import evaluate
from kernels.paths import numeric_path
from kernels.stages import Site
from store.traces.open import open_trace
from tests.artifacts import tiny_gguf
from tests.memory_model import place
from workbench.bisect.pair import bisect_pair
from workbench.pair.kv_cache import KvCache
from workbench.pair.pair import open_pair

GOLDEN = Path(__file__).parents[1] / "golden"
TOKENS = (5, 10, 7, 7, 31, 12)
SIZES = {"hidden": 128, "heads": 2, "kv_heads": 1, "head_dim": 64, "ffn": 64, "layers": 1, "vocab": 64}
ATTENTION = Site(0, "attention")


@pytest.mark.parametrize("kind", ["q8_0", "q4_0"])
def test_attention_behind_a_turned_cache_is_the_node_that_is_turned_back(tmp_path, kind):
    model = tiny_gguf(tmp_path / "m.gguf", **SIZES)
    trace = open_trace(GOLDEN / f"llama-cpp-kv-{kind}.npz").bind(TOKENS, model.config)
    assert trace.observed["type_k"] == trace.observed["type_v"] == kind
    assert trace.observed["turned_k"] == trace.observed["turned_v"] == 64
    at = place(model, numeric_path("ggml"), TOKENS, 0, "attention")
    reads = {role: trace.read(Site(0, name)).copy() for role, name in at.stage.inputs.items()}
    off = trace.read(ATTENTION).astype(np.float64) - evaluate(at, reads)
    noise = KvCache(kind, kind, 64, 64).noise(at.kind, reads)
    measured = np.sqrt(np.square(off).mean(axis=1) / np.square(noise).mean(axis=1))
    assert 0.7 < measured[0] < 1.3  # the first token has one key, so that no errors average out
    assert measured.max() < 1.3
    answer = bisect_pair(open_pair((tmp_path / "m.gguf", trace.path), (None, None), None, None)).bisection
    assert answer.verdict == "numerics_only"


def test_a_mistake_shows_through_a_quantized_cache(tmp_path):
    """Heads exchanged behind the cache: beyond what 8 bits take away, and named."""
    tiny_gguf(tmp_path / "m.gguf", **SIZES)
    with np.load(GOLDEN / "llama-cpp-kv-q8_0.npz") as arrays:
        changed = dict(arrays)
    key = "00017|node_36|MUL_MAT"  # what turns attention back
    changed[key] = changed[key].reshape(6, 2, 64)[:, ::-1].reshape(12, 64)
    np.savez(tmp_path / "t.npz", **changed)
    answer = bisect_pair(open_pair((tmp_path / "m.gguf", tmp_path / "t.npz"), (None, None), None, None)).bisection
    assert (answer.verdict, answer.culprit.site, answer.culprit.cause) == ("divergent", ATTENTION, "rows_permuted")


def test_outliers_cost_less_where_the_cache_is_turned(tmp_path):
    """One channel 100 times the rest makes the step of its block; a turn shares it among 64."""
    model = tiny_gguf(tmp_path / "m.gguf", **SIZES)
    rng = np.random.default_rng(0)
    reads = {role: rng.normal(size=(6, channels)) for role, channels in (("q", 128), ("k", 64), ("v", 256))}
    reads["v"][:, 192] *= 100
    kind = place(model, numeric_path("ggml"), TOKENS, 0, "attention").kind
    plain, turned = (KvCache("f16", "q4_0", 0, side).noise(kind, reads) for side in (0, 64))
    assert plain[:, :32].min() > 2 * turned[:, :32].max()
    assert plain[:, 33:64].max() < turned[:, 33:64].min()
