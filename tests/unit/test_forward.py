"""The forward against other engines' dumps, a literal re-implementation, and itself."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kernels.errors import WorkbenchError
from kernels.forward import evaluate, forward
from kernels.graph import At
from kernels.kinds.activation import Activation
from kernels.kinds.elementwise import Add, Scaled
from kernels.kinds.rotate import Rotation, Unrotated
from kernels.kinds.scan import Part
from kernels.models import Graph
from kernels.ops import rotate
from kernels.paths import PATHS, numeric_path
from kernels.stages import Site
from kernels.weight import TensorType
from store.open import open_artifact
from tests.gguf_files import interleaved
from tests.golden.record_families import (
    FIRST,
    FURTHER,
    OF_FAMILY,
    ONLY_GGUF,
    OTHERS,
    TYPE,
    gguf_shape,
    optional_model,
    shape,
)
from tests.memory_model import random_model, spine
from tests.reference.forward import literal_forward

GOLDEN = Path(__file__).parents[1] / "golden"
SHIPPED = Path(__file__).parents[2] / "workbench/demo/tiny-qwen2-q4_k_m.gguf"
TOKENS = (5, 100, 7, 7, 31)
LLAMA_TOKENS = (5, 60, 7, 7, 31)
PROMPT = (482, 803, 10, 67, 14, 310, 307)  # "def add(a, b):" in the shipped model's vocabulary
MATMULS = ("qkv_matmul", "attn_out", "ffn_gate", "ffn_up", "ffn_out", "lm_head")
OF_RECURRENCES = ("conv_in", "scan_in", "delta_qkv", "delta_z", "delta_b", "delta_a", "attn_gate")
OF_LAYERS = ("ple_projection", "ple_gate", "ple_out")
SIXTEEN_LANES = ("qwen3", "gemma3")  # recorded by a build with AVX-512
OF_EXPERTS = ("router", "expert_gate", "expert_up", "expert_out", "shared_gate", "shared_up", "shared_out")


def relative_rms(a, b):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return np.linalg.norm(a - b) / np.linalg.norm(b)


def dump(name: str) -> dict[Site, np.ndarray]:
    """A recorded dump; llama.cpp keeps q, k and v apart and leaves out what it does not materialise."""
    stages = {}
    with np.load(GOLDEN / name) as arrays:
        for key, value in arrays.items():
            layer, stage, *part = key.split(".")
            site = Site(None if layer == "-1" else int(layer), stage)
            if not part:
                stages[site] = value.reshape(len(value), -1)
            elif part == ["q"]:
                stages[site] = np.concatenate([arrays[f"{layer}.{stage}.{p}"] for p in "qkv"], axis=1)
    return stages


def model_of(architecture: str, type: TensorType = TensorType.F32):
    if architecture == "qwen2":
        return random_model("qwen2")
    if architecture == "llama":
        return random_model("llama", kv_heads=1, tied=True, seed=1)
    return random_model(architecture, **shape(architecture))


def transformers_cases():
    for architecture in (*FIRST, *OTHERS, *FURTHER):
        yield architecture, "f32", "float32", 2e-6
        if architecture in FIRST:
            yield architecture, "f64", "float64", 5e-7


@pytest.mark.parametrize(("architecture", "path", "dtype", "limit"), transformers_cases())
def test_every_stage_agrees_with_transformers(architecture, path, dtype, limit):
    expected, model = dump(f"transformers-{architecture}-{dtype}.npz"), model_of(architecture)
    ours = dict(forward(model, TOKENS, numeric_path(path)))
    unseen = {stage.site for stage in Graph.of(model).stages() if isinstance(stage.kind, Unrotated)}
    unseen |= {
        Site(stage.site.layer, stage.reads[0]) for stage in Graph.of(model).stages() if stage.site in scaled(model)
    }
    assert ours.keys() - unseen == expected.keys()
    worst = max((relative_rms(ours[site], expected[site]), site) for site in expected)
    assert worst[0] < limit, worst


def literal_cases():
    for architecture in (*FIRST, *OTHERS, *ONLY_GGUF, *FURTHER):
        for rope in ("neox", "norm", "scaled", "partly", "not causal")[:: 3 if architecture in FURTHER else 1]:
            yield architecture, rope


@pytest.mark.parametrize(("architecture", "rope"), literal_cases())
def test_the_oracle_agrees_with_a_literal_forward(architecture, rope):
    layers = shape(architecture).get("layers", 2)
    sizes = {"layers": layers, "heads": 6, "kv_heads": 2, "head_dim": 8, "hidden": 40, "ffn": 48, "vocab": 32}
    tied = OF_FAMILY.get(architecture, {}).get("tied", False)
    model = random_model(architecture, **sizes, tied=tied, seed=3)
    changes = {
        "neox": {"rope_type": "neox"},
        "norm": {"rope_type": "norm"},
        "scaled": {"rotary_dim": None, "rope_factors": (1.0, 2.0, 4.0, 8.0), "rope_attention_factor": 1.25},
        "partly": {"rotary_dim": 4, "rope_factors": (1.0, 4.0), "rope_attention_factor": 1.25},
        "not causal": {"causal": False},
    }
    if model.config.full_head_dim is not None:  # the divisors are of heads twice as large
        changes["scaled"]["rope_factors"] *= 2
    model.config = replace(model.config, **changes[rope])
    expected = literal_forward(model.config, model.values(), (3, 1, 30, 1))
    ours = dict(forward(model, (3, 1, 30, 1), numeric_path("f64")))
    assert {tuple(site) for site in ours} == expected.keys()
    worst = max((relative_rms(ours[Site(*site)], expected[site]), site) for site in expected)
    assert worst[0] < 1e-12, worst


def scaled(model):
    """What layers give that is scaled; the sum before has no name in either engine."""
    return {stage.site for stage in Graph.of(model).stages() if isinstance(stage.kind, Scaled)}


def forced(model, path, recorded):
    """Every recorded stage re-run on the engine's own recorded inputs."""
    of_layers, graph = scaled(model), Graph.of(model)
    given = "layer_output" if of_layers else "post_ffn_residual"
    for layer in [None, *range(model.config.num_hidden_layers)]:
        stages = {site.stage: value for site, value in recorded.items() if site.layer == layer}
        if layer is None:
            last = model.config.num_hidden_layers - 1
            stages["layer_output"] = recorded[Site(last, given)]
        else:
            before = Site(None, "embedding") if layer == 0 else Site(layer - 1, given)
            stages |= {name: recorded[site] for name, site in graph.given(layer).items() if site in recorded}
            stages |= {"layer_input": recorded[before]} if before in recorded else {}
        tokens = TOKENS if model.config.layer_embedding_size else (0,) * len(recorded[Site(None, "embedding")])
        silent = set()
        for stage in Graph.of(model).layer(layer) if layer is not None else ():
            # llama.cpp fuses the activation into the next stage, and has no node where nothing is rotated
            unnamed = isinstance(stage.kind, Activation | Part | Unrotated | (Add if of_layers else Part))
            if unnamed and stage.site not in recorded and stage.reads[0] in stages:
                silent.add(stage.site.stage)
                x = {role: stages[name] for role, name in stage.inputs.items()}
                stages[stage.site.stage] = evaluate(At(model, path, tokens, stage), x)
        seen = stages.keys() - {"embedding", "layer_input"} - silent - (set() if of_layers else {"layer_output"})
        for name in sorted(seen):
            stage = Graph.of(model).stage(Site(layer, name))  # dumps of models without biases have qkv_bias too
            if stage is not None and all(name in stages for name in stage.reads):
                inputs = {role: np.ascontiguousarray(stages[name]) for role, name in stage.inputs.items()}
                yield stage.site, evaluate(At(model, path, tokens, stage), inputs), stages[name]


def llama_cpp_cases():
    """The types that whole models were recorded in; of all others golden/ggml-dots.npz has the products."""
    for name in ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K"]:
        type = TensorType[name]
        qwen2 = type in (TensorType.Q5_0, TensorType.Q4_K, TensorType.Q8_0, TensorType.F16)
        yield pytest.param("qwen2" if qwen2 else "llama", type, id=type.name)


@pytest.mark.parametrize(("architecture", "type"), llama_cpp_cases())
def test_each_operation_agrees_with_llama_cpp_on_its_own_inputs(architecture, type):
    shape = {"layers": 1, "head_dim": 64, "hidden": 256, "ffn": 512, "vocab": 64, "tied": type == TensorType.Q6_K}
    model = random_model(architecture, type, **shape, seed=int(type))
    recorded = dump(f"llama-cpp-{architecture}-{type.name.lower()}.npz")
    if architecture == "llama":
        recorded = {site: canonical_heads(site, value, model.config) for site, value in recorded.items()}
    checked = [
        check_stage(site, ours, theirs, type) for site, ours, theirs in forced(model, numeric_path("ggml"), recorded)
    ]
    assert set(MATMULS) <= {site.stage for site in checked}


@pytest.mark.parametrize("architecture", ["qwen3", "gemma3", *OTHERS, *ONLY_GGUF, *FURTHER])
def test_each_operation_of_other_families_agrees_with_llama_cpp(architecture):
    model = random_model(architecture, TensorType[TYPE], **gguf_shape(architecture))
    path = numeric_path("ggml:avx512" if architecture in SIXTEEN_LANES else "ggml")
    recorded = dump(f"llama-cpp-{architecture}-{TYPE.lower()}.npz")
    if architecture == "mixtral":  # to llama.cpp it is a llama, and its scores are added up in the order of such files
        model.config = replace(model.config, architecture="llama")
    if interleaved(model.config.architecture):
        recorded = {site: canonical_heads(site, value, model.config) for site, value in recorded.items()}
    pairs = {site: (ours, theirs) for site, ours, theirs in forced(model, path, recorded)}
    for site, (ours, theirs) in pairs.items():
        assert same_bits(ours, theirs), site
    assert pairs.keys() >= {site for site in recorded if site.stage not in ("embedding", "layer_output", "qkv_bias")}
    run = dict(forward(model, TOKENS, path))
    assert all(same_bits(run[site], recorded[site]) for site in recorded if site in run)


def same_bits(a, b):
    return np.array_equal(*(np.ascontiguousarray(x, np.float32).view(np.uint32) for x in (a, b)))


def test_factors_and_biases_of_products_agree_with_llama_cpp():
    model, path = optional_model(), numeric_path("ggml")
    recorded = dump(f"llama-cpp-optional-{TYPE.lower()}.npz")
    recorded = {site: canonical_heads(site, value, model.config) for site, value in recorded.items()}
    checked = {check_stage(site, x, y, TensorType[TYPE]) for site, x, y in forced(model, path, recorded)}
    assert {site.stage for site in checked} >= {*MATMULS, "qkv_bias"}
    run = dict(forward(model, TOKENS, path))
    assert relative_rms(run[Site(None, "lm_head")], recorded[Site(None, "lm_head")]) < 1e-5


def canonical_heads(site: Site, value: np.ndarray, config) -> np.ndarray:
    """q and k channels of a llama dump in Hugging Face's order: even channels of a head, then odd ones."""
    both = config.q_size + config.kv_size
    sizes = {
        "qkv_matmul": both,
        "qkv_bias": both,
        "qkv_clip": both,
        "q_post_rope": config.q_size,
        "k_post_rope": config.kv_size,
        "q_tempered": config.q_size,
    }
    size = sizes.get(site.stage, 0)
    heads = value[:, :size].reshape(len(value), -1, config.head_dim // 2, 2).swapaxes(2, 3).reshape(len(value), size)
    return np.concatenate([heads, value[:, size:]], axis=1)


def check_stage(site, ours, theirs, type) -> Site:
    if site.stage in (*MATMULS, *OF_EXPERTS, *OF_RECURRENCES, *OF_LAYERS) and type.block.elements > 1:
        assert np.array_equal(ours.view(np.uint32), theirs.view(np.uint32)), site
    else:
        assert relative_rms(ours, theirs) < 1e-6, site
    return site


def test_the_shipped_model_agrees_with_llama_cpp():
    model, recorded = open_artifact(SHIPPED), dump("llama-cpp-tiny-qwen2-q4_k_m.npz")
    for site, ours, theirs in forced(model, numeric_path("ggml"), recorded):
        check_stage(site, ours, theirs, TensorType.Q4_K)
    run = dict(forward(model, PROMPT, numeric_path("ggml")))
    assert relative_rms(run[Site(None, "lm_head")], recorded[Site(None, "lm_head")]) < 1e-6


@pytest.mark.parametrize("path", PATHS)
def test_any_number_of_threads_gives_the_same_bits(path, monkeypatch):
    model = random_model(type=TensorType.Q4_K, layers=1, hidden=256, ffn=512, head_dim=64, vocab=600)
    runs, tokens = [], tuple(range(140))  # enough for every operation to be shared
    for threads in ("1", "2", "3"):
        monkeypatch.setenv("WORKBENCH_THREADS", threads)
        runs.append({site: value.tobytes() for site, value in forward(model, tokens, numeric_path(path))})
    assert runs[0] == runs[1] == runs[2]


def test_a_run_goes_on_after_any_layer_with_the_same_bits():
    model, path = random_model(layers=3), numeric_path("f64")
    whole = list(forward(model, TOKENS, path))
    x = dict(whole)[Site(1, "layer_output")]
    rest = list(forward(model, TOKENS, path, start_layer=2, known={Site(1, "layer_output"): x}))
    assert rest[0][0] == Site(2, "attn_norm")
    assert [site for site, _ in rest] == [site for site, _ in whole[-len(rest) :]]
    assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(rest, whole[-len(rest) :], strict=True))


def test_stages_come_in_execution_order_and_a_model_without_biases_has_no_bias_stage():
    order = spine(2)
    assert [site for site, _ in forward(random_model(), TOKENS, numeric_path("f32"))] == order
    without = [site for site in order if site.stage != "qkv_bias"]
    assert [site for site, _ in forward(random_model("llama"), TOKENS, numeric_path("f32"))] == without


@pytest.mark.parametrize(("tokens", "words"), [((), "no tokens"), ((3, 128), "token 128"), ((-1,), "token -1")])
def test_tokens_outside_the_vocabulary_are_refused(tokens, words):
    with pytest.raises(WorkbenchError, match=words):
        next(forward(random_model(), tokens, numeric_path("f32")))


def test_rotation_keeps_the_length_of_every_pair():
    config = random_model().config
    x = np.random.default_rng(0).standard_normal((3, config.q_size))
    angles = np.random.default_rng(1).uniform(0, 6, (3, config.head_dim // 2))
    turned = rotate(x, angles, Rotation(config.head_dim, config.rope_theta))
    assert not np.allclose(turned, x)
    assert np.allclose(np.linalg.norm(turned, axis=1), np.linalg.norm(x, axis=1), rtol=1e-14)
