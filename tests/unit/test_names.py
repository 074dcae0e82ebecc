"""Tensor names: every spelling leads to the Hugging Face name, and back to GGUF's."""

import re

import gguf
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels.models import ARCHITECTURES, family
from store.names import canonical_name, gguf_name, is_gguf_name, layer_of
from tests.golden.record_families import OF_FAMILY
from tests.hf_files import FUSED, hf_name
from tests.memory_model import random_model

# Those that the installed gguf package knows; it may be older than the engine.
# But codeshell and dbrx, which it knows with q, k and v in one tensor only.
KNOWN_THERE = [name for name in ARCHITECTURES if family(name).gguf in gguf.MODEL_ARCH_NAMES.values()]
# Nor those that its converter renames or puts together first; both engines load what tests write of these.
KNOWN_THERE = [name for name in KNOWN_THERE if family(name).in_apr and name not in ("codeshell", "dbrx")]


def whole_of(name, architecture):
    """The name of the tensor that holds one in the files of both engines."""
    for whole, parts in FUSED.get(architecture, {}).items():
        for part in parts:
            name = name.replace(part, whole)
    return name


@pytest.mark.parametrize("architecture", KNOWN_THERE)
def test_names_agree_with_the_gguf_package(architecture):
    of, arch = family(architecture).gguf, {name: number for number, name in gguf.MODEL_ARCH_NAMES.items()}
    theirs = gguf.get_tensor_name_map(arch[of], 12)
    tied = OF_FAMILY.get(architecture, {}).get("tied", False)
    config = random_model(architecture, layers=11, tied=tied).config
    for name in [tensor.name for tensor in family(architecture).tensors(config)]:
        # all experts of a layer, and all heads, are one tensor there
        name = re.sub(r"(\.experts|[kv]_b_proj)\.\d+\.", r"\1.", whole_of(name, architecture))
        looked_up = name.replace(".output_scale", ".weight").replace("correction_bias", "correction.bias")
        own = hf_name(looked_up, family(architecture).modules)
        raw = next(
            filter(None, (theirs.get_name(known, try_suffixes=(".weight", ".bias")) for known in (looked_up, own)))
        )
        if name.endswith(".output_scale"):
            raw = raw.replace(".weight", ".scale")
        assert gguf_name(name, of) == raw
        assert canonical_name(raw, of) == name
        assert is_gguf_name(raw)
        assert not is_gguf_name(name)


@pytest.mark.parametrize(
    ("raw", "canonical"),
    [
        ("layers.3.mlp.up_proj.weight", "model.layers.3.mlp.up_proj.weight"),
        ("tok_embeddings.weight", "model.embed_tokens.weight"),
        ("embed_tokens.weight", "model.embed_tokens.weight"),
        ("norm.weight", "model.norm.weight"),
        ("output_norm.weight", "model.norm.weight"),
        ("output.weight", "lm_head.weight"),
        ("blk.7.attn_qkv.bias", "model.layers.7.self_attn.qkv_proj.bias"),
        ("rope_freqs.weight", "rope_freqs.weight"),
        ("blk.07.attn_q.weight", "blk.07.attn_q.weight"),  # not a second name of layer 7
        ("blk.7.attn_q.weight\n", "blk.7.attn_q.weight\n"),
        ("blk.٧.attn_q.weight", "blk.٧.attn_q.weight"),
        ("blk.7.ffn_gate_exps.weight", "model.layers.7.mlp.experts.gate_proj.weight"),
        ("blk.7.exp_probs_b.bias", "model.layers.7.mlp.gate.e_score_correction_bias"),
        ("blk.7.ffn_norm_exps.weight", "blk.7.ffn_norm_exps.weight"),
        ("model.layers.7.block_sparse_moe.gate.weight", "model.layers.7.mlp.gate.weight"),
        ("model.layers.7.block_sparse_moe.experts.11.w3.weight", "model.layers.7.mlp.experts.11.up_proj.weight"),
        ("model.layers.7.mlp.experts.gate_up_proj", "model.layers.7.mlp.experts.gate_up_proj.weight"),
        ("model.layers.7.mlp.shared_experts.up_proj.weight", "model.layers.7.mlp.shared_expert.up_proj.weight"),
    ],
)
def test_other_spellings(raw, canonical):
    assert canonical_name(raw) == canonical


def test_layers():
    assert layer_of("model.layers.12.mlp.up_proj.weight") == 12
    assert layer_of("blk.12.ffn_gate_exps.weight") == 12
    assert layer_of("lm_head.weight") is None


@given(st.text())
def test_no_name_breaks_the_mapping(name):
    assert canonical_name(canonical_name(name)) == canonical_name(name)
    assert isinstance(gguf_name(name), str)
    layer_of(name)
