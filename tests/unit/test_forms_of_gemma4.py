"""gemma4 with embeddings of every layer and shared keys (E2B), and with experts (26B-A4B); their mistakes."""

from dataclasses import replace
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest

from kernels.errors import WorkbenchError
from kernels.forward import evaluate, forward
from kernels.graph import At
from kernels.models import Graph
from kernels.paths import numeric_path
from kernels.stages import Site
from store.open import open_artifact
from store.traces.arrays import StoredArray
from store.traces.llama_gemma4 import of_gemma4
from store.traces.llama_graph import Node
from tests.family_faults import (
    TOKENS,
    Fault,
    Recorded,
    bisected,
    check_named,
    fault_name,
    model_of,
    of_layer,
    run_with,
)
from tests.gguf_files import write_gguf
from tests.hf_files import float_tensor, write_safetensors
from workbench.bisect.models.bisection import Side
from workbench.bisect.models.patch import patch_stage
from workbench.bisect.traces.bisection import bisect_trace
from workbench.bisect.traces.stages import Reader
from workbench.capture.lockstep import Running

F32 = numeric_path("f32")
E2B, A4B = "gemma4-e2b", "gemma4-a4b"


def again(model, site, inputs, **changes):
    """A stage of a model on other inputs, or with other tensors."""
    stage = replace(Graph.of(model).stage(site), **changes)
    return evaluate(At(model, F32, TOKENS, stage), inputs)


def without_factor(factor):
    return lambda model, known, right: right / np.float32(factor)


def taken(stage):
    """What another stage of the layer gives."""
    return lambda model, known, right: known[stage].copy()


def of_the_next_layer(model, known, right):
    kind = Graph.of(model).stage(Site(1, "ple_embedding")).kind
    return again(model, Site(1, "ple_embedding"), {}, kind=replace(kind, start=2 * kind.size))


def of_a_layer_before(model, known, right, site):
    """Attention to keys and values of the first layer, which the last of its type replaced."""
    first = dict(forward(model, TOKENS, F32))
    return again(model, site, {"q": known["q_post_rope"], **{part: first[Site(0, stage)] for part, stage in _KV}})


_KV = (("k", "k_post_rope"), ("v", "v_norm"))


def with_silu(model, known, right):
    return F32.silu(known["ple_gate"])


def without_weight(model, known, right):
    x = known["post_attn_residual"]
    size = np.sqrt(np.square(x).mean(axis=1, keepdims=True) + np.float32(model.config.rms_norm_eps))
    return x / size / np.float32(model.config.hidden_size**0.5)


def without_scales(model, known, right):
    site = Site(0, "expert_out")
    stage = Graph.of(model).stage(site)
    inputs = {role: known[name] for role, name in stage.inputs.items()}
    return again(model, site, inputs, tensors=tuple(name for name in stage.tensors if name not in stage.scales))


def undivided(model, known, right):
    kind = Graph.of(model).stage(Site(0, "expert_weights")).kind
    return again(model, Site(0, "expert_weights"), {"x": known["router"]}, kind=replace(kind, renormalised=False))


def routed_by_the_block(model, known, right):
    """The router on what the block beside the experts reads."""
    return again(model, Site(0, "router"), {"x": known["ffn_norm"]})


PROJECTION = "per_layer_projection"
FAULTS = (
    Fault(E2B, Site(0, "ple_embedding"), "scaled", "not multiplied by", change=without_factor(32**0.5)),
    Fault(E2B, Site(1, "ple_embedding"), "wrong_layer", "those of layer 2", change=of_the_next_layer),
    Fault(E2B, Site(0, "ple_projection"), "scaled", "not multiplied by 0.125", change=without_factor(64**-0.5)),
    Fault(E2B, Site(0, "ple_input"), "scaled", "the sum is not multiplied by 0.707", change=without_factor(2**-0.5)),
    Fault(E2B, Site(3, "ple_gelu"), "activation_function", "SiLU", change=with_silu),
    Fault(E2B, Site(2, "post_ple_norm"), "norm_missing", "left out", change=taken("ple_out")),
    Fault(E2B, Site(2, "ple_out"), "wrong_layer", "",
          tensors={of_layer(2, PROJECTION): of_layer(1, PROJECTION)}),
    Fault(E2B, Site(0, "ple_norm"), "norm_offset", "",
          tensors={"model.per_layer_projection_norm.weight": lambda w: w + 1}),
    Fault(A4B, Site(0, "router_norm"), "scaled", "not multiplied by 0.125", change=without_factor(64**-0.5)),
    Fault(A4B, Site(0, "router_norm"), "norm_missing", "weight is not applied", change=without_weight),
    Fault(A4B, Site(0, "router"), "unknown", "ffn_norm", change=routed_by_the_block),
    Fault(A4B, Site(0, "expert_weights"), "router", "not divided by their sum", change=undivided),
    Fault(A4B, Site(0, "expert_out"), "scaled", "factors", change=without_scales),
    Fault(A4B, Site(0, "ffn_out"), "residual_missing", "", change=taken("expert_sum_norm")),
    Fault(A4B, Site(0, "expert_norm"), "norm_offset", "",
          tensors={of_layer(0, "pre_feedforward_layernorm_2"): lambda w: w + 1}),
    Fault(A4B, Site(0, "shared_norm"), "wrong_layer", "",
          tensors={of_layer(0, "post_feedforward_layernorm_1"): of_layer(0, "post_feedforward_layernorm_2")}),
)  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS, ids=fault_name)
def test_a_mistake_is_named(fault):
    check_named(fault)


def test_keys_and_values_of_the_wrong_layer_are_named():
    model, site = model_of(E2B, layers=6), Site(4, "attention")
    assert Graph.of(model).reads(Graph.of(model).stage(site))["k"] == Site(2, "k_post_rope")
    fault = Fault(E2B, site, "kv_source", change=of_a_layer_before)
    recorded = Recorded(run_with(model, fault))
    found = bisect_trace(Reader(model, F32, recorded, TOKENS)).culprit
    assert (found.site, found.cause) == (site, "kv_source")
    assert "keys and values are those of layer 0" in found.explanation


def test_layers_that_share_keys_have_none_and_are_wider():
    sizes = [{stage.site.stage: stage.channels for stage in Graph.of(model_of(E2B)).layer(n)} for n in range(4)]
    assert [[of.get(name) for name in ("qkv_matmul", "k_post_rope", "ffn_up", "ple_input")] for of in sizes] == [
        [128, 32, 96, 32],
        [256, 64, 96, 32],
        [64, None, 192, 32],
        [128, None, 192, 32],
    ]


def test_tensors_that_layers_with_shared_keys_do_not_use_are_said(tmp_path):
    model = model_of(E2B)
    own, more = of_layer(0, "self_attn.k_proj"), of_layer(2, "self_attn.k_proj")
    with_keys = replace(model, weights=model.weights | {more: float_tensor(more, model.values()[own])})
    write_gguf(tmp_path / "m.gguf", with_keys)
    write_safetensors(tmp_path / "folder", with_keys)
    for name, stored in (("m.gguf", "blk.2.attn_k.weight"), ("folder", more)):
        artifact = open_artifact(tmp_path / name)
        assert [problem for problem in artifact.problems if stored in problem and "does not use" in problem]
    assert bisected(artifact, model).verdict == "alike"


@pytest.mark.parametrize(
    ("form", "changes", "words"),
    [
        (E2B, {"attention__shared_kv_layers": 3}, "attention.shared_kv_layers"),
        (E2B, {"embedding_length_per_layer_input": 16}, "per_layer"),
        (A4B, {"expert_count": 5}, "5 experts"),
    ],
)
def test_settings_that_do_not_fit_are_refused(tmp_path, form, changes, words):
    write_gguf(tmp_path / "m.gguf", model_of(form), **changes)
    with pytest.raises(WorkbenchError, match=words):
        open_artifact(tmp_path / "m.gguf")


def test_a_run_is_patched_and_resumed_where_later_layers_read_of_earlier_ones():
    """What is exchanged in a layer reaches those that attend to its keys."""
    model = model_of(E2B)
    other = replace(model, weights=model.weights | {of_layer(1, "self_attn.k_proj"): halved(model)})
    sides = Side(model, F32), Side(other, F32)
    found = patch_stage(*sides, Site(1, "k_post_rope"), TOKENS)
    assert found.both.identical or found.left < 1e-6
    assert found.brought > 1 - 1e-6
    whole = dict(forward(model, TOKENS, F32))
    known = {site: whole[site] for site in Graph.of(model).needed(3)}
    assert known.keys() == {Site(2, "layer_output"), Site(1, "k_post_rope"), Site(1, "v_norm"), Site(None, "embedding")}
    rest = dict(forward(model, TOKENS, F32, 3, known))
    assert all(np.array_equal(values, whole[site]) for site, values in rest.items())


def halved(model):
    name = of_layer(1, "self_attn.k_proj")
    return float_tensor(name, model.values()[name] + np.float32(0.01) * model.values()[name][::-1])


def test_what_holds_all_layers_is_taken_apart_in_batches_of_one_token_too():
    values = np.arange(3 * 4 * 8, dtype=np.float32).reshape(3, 4, 8)
    batches = [StoredArray(part.shape, "float32", lambda part=part: part) for part in (values[:2], values[2])]
    nodes = [Node("inp_per_layer", "SCALE", "f32", (), array) for array in batches]
    slots = of_gemma4({(3, "l_out"): []}, nodes)
    for layer in range(4):
        found = np.concatenate([node.values() for node in slots[layer, "ple_input"]])
        assert np.array_equal(found, values[:, layer])


class Begun(NamedTuple):
    """What is kept of a capture that was broken off."""

    completed_layers: int
    state: np.ndarray | None

    def resume_state(self):
        return self.state


@pytest.mark.parametrize("form", [E2B, A4B])
@pytest.mark.parametrize("layers", [0, 1])
def test_a_capture_that_was_broken_off_goes_on_with_the_same_bits(form, layers):
    model = model_of(form)
    whole = dict(forward(model, TOKENS, F32))
    begun = Begun(layers, whole[Site(layers - 1, "layer_output")] if layers else None)
    rest = dict(Running(SimpleNamespace(tokens=TOKENS), model, None)._rest(F32, begun))
    done = {site for site in whole if site.stage == "embedding" or site.layer == 0} if layers else set()
    assert rest.keys() == whole.keys() - done
    assert all(np.array_equal(values, whole[site]) for site, values in rest.items())


@pytest.mark.parametrize("type", ["Q8_0", "F32"])
def test_rows_of_other_tokens_are_told_within_the_part_of_a_layer(type):
    model = model_of(E2B, type=type)
    site = Site(1, "ple_embedding")

    def other_tokens(model, known, right):
        stage = Graph.of(model).stage(site)
        return evaluate(At(model, F32, tuple((token + 3) % 128 for token in TOKENS), stage), {})

    recorded = Recorded(run_with(model, Fault(E2B, site, "", change=other_tokens)))
    found = bisect_trace(Reader(model, F32, recorded, TOKENS)).culprit
    assert (found.site, found.cause) == (site, "rows_permuted"), found.explanation
    assert "3 further on" in found.explanation
