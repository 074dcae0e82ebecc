"""Parts of weights that were put together wrongly are named, whether a converter or a packer did it."""

import numpy as np
import pytest

from store.open import open_artifact, open_model
from tests.faults.models import plain
from tests.hf_files import float_tensor
from tests.memory_model import MemoryModel
from tests.packed_models import WEIGHT, entry, integers, packed_by, words_of, write_case, write_packed
from workbench.bisect.weights.causes import weight_causes
from workbench.bisect.weights.check import check_weights

PLAIN = plain("qwen2-4to1")
SOURCE = MemoryModel(PLAIN.config, {name: float_tensor(name, x) for name, x in PLAIN.values.items()})
UP, Q = (f"model.layers.1.{module}" for module in ("mlp.up_proj", "self_attn.q_proj"))
HEAD = PLAIN.config.head_dim
ORDER = np.array([0, 2, 4, 6, 1, 3, 5, 7])


def values_of(name):
    return PLAIN.values[f"{name}.weight"]


def best(name, a, b):
    causes = weight_causes(
        f"{name}.weight", a, b, check_weights(a.weight(f"{name}.weight"), b.weight(f"{name}.weight"))
    )
    return causes[0]


def with_values(name, values):
    """The source with one tensor of other values."""
    return MemoryModel(PLAIN.config, SOURCE.weights | {f"{name}.weight": float_tensor(f"{name}.weight", values)})


def read(codes, scales, zeros):
    """Values of codes (out, in), scales and zero points (out, groups), rounded to half precision."""
    groups = (codes.astype(np.float32).reshape(*scales.shape, -1) - zeros[..., None]) * scales[..., None].astype(
        np.float32
    )
    return groups.reshape(codes.shape).astype(np.float16).astype(np.float32)


def pairs(x):
    """Rows of heads in the order of adjacent pairs."""
    return x.reshape(-1, 2, HEAD // 2, x.shape[1]).swapaxes(1, 2).reshape(x.shape)


def by_outputs(x):
    return x.reshape(-1, 8, x.shape[1])[:, ORDER].reshape(x.shape)


READERS = {
    "one more": ("zero_point", UP, lambda c, s, z: read(c, s, z + 1.0)),
    "one less": ("zero_point", UP, lambda c, s, z: read(c, s, z - 1.0)),
    "middle": ("zero_point", UP, lambda c, s, z: read(c, s, np.full(z.shape, 8.0))),
    "bytes": ("nibble_order", UP, lambda c, s, z: read(c.reshape(-1, 2)[:, ::-1].reshape(c.shape), s, z)),
    "words": ("nibble_order", UP, lambda c, s, z: read(c.reshape(-1, 8)[:, ::-1].reshape(c.shape), s, z)),
    "blocks": ("nibble_order", UP, lambda c, s, z: read(c.reshape(-1, 16, 2).swapaxes(1, 2).reshape(c.shape), s, z)),
    "outputs": ("nibble_order", UP, lambda c, s, z: read(by_outputs(c), s, z)),
    "group after": ("scale_order", UP, lambda c, s, z: read(c, np.roll(s, -1, 1), np.roll(z, -1, 1))),
    "rows": ("scale_order", Q, lambda c, s, z: read(pairs(c), s, z)),
}


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    return {
        method: open_artifact(write_packed(tmp_path_factory.mktemp(method), SOURCE, method))
        for method in ("gptq", "awq", "fp8")
    }


@pytest.mark.parametrize(
    ("method", "reader"), [*(("gptq", reader) for reader in READERS), ("awq", "outputs"), ("awq", "one more")]
)
def test_a_converter_that_reads_the_parts_wrongly(packed, method, reader):
    cause, name, misread = READERS[reader]
    codes, scales, zeros = integers(values_of(name))
    wrong = with_values(name, misread(codes, scales, zeros.astype(np.float32)))
    for pair in ((packed[method], wrong), (wrong, packed[method])):
        found = best(name, *pair)
        assert (found.cause, found.explained) == (cause, True), found


@pytest.mark.parametrize(("by", "cause"), [(np.divide, "reciprocal_scale"), (lambda c, s: c, "scaled")])
def test_scales_of_tiles_that_divide_or_are_left_out(packed, by, cause):
    weight = packed["fp8"].weight(f"{UP}.weight")
    taken = weight.stored.taken(np.arange(len(weight.rows)))
    wrong = with_values(UP, by(weight.stored.levels[taken.codes], taken.scales))
    assert best(UP, packed["fp8"], wrong).cause == cause


def test_scales_of_the_tiles_below(packed):
    weight = packed["fp8"].weight(f"{UP}.weight")
    taken = weight.stored.taken(np.arange(len(weight.rows)))
    wrong = with_values(UP, weight.stored.levels[taken.codes] * np.roll(taken.scales, -32, axis=0))
    assert best(UP, packed["fp8"], wrong).cause == "scale_order"


def zeros_off(module, parts):
    """Zero points of GPTQ's first version as the second one stores them."""
    if module == UP:
        zeros = integers(values_of(UP))[2]
        parts["qzeros"] = entry("I32", words_of(zeros.T))


def reversed_words(module, parts):
    if module == UP:
        codes = integers(values_of(UP))[0]
        parts["qweight"] = entry("I32", words_of(codes, tuple(range(7, -1, -1))).T)


def codes_moved(module, parts):
    """Rows of q for the other rotary convention, without their scales."""
    if module == Q:
        parts["qweight"] = packed_by("gptq", pairs(values_of(Q)))["qweight"]


@pytest.mark.parametrize(
    ("change", "name", "cause"),
    [(zeros_off, UP, "zero_point"), (reversed_words, UP, "nibble_order"), (codes_moved, Q, "scale_order")],
)
def test_a_packer_that_writes_the_parts_wrongly(tmp_path, change, name, cause):
    wrong = open_artifact(write_packed(tmp_path, SOURCE, "gptq", change))
    found = best(name, SOURCE, wrong)
    assert (found.cause, found.explained) == (cause, True), found


def test_groups_of_neighbours_instead_of_g_idx(tmp_path):
    columns = values_of(UP).shape[1]
    order = np.random.default_rng(5).permutation(columns)

    def in_order(module, parts):
        if module == UP:
            parts.update(packed_by("gptq", values_of(UP)[:, order]))
            codes = integers(values_of(UP)[:, order])[0]
            back = np.argsort(order)
            parts["qweight"] = entry("I32", words_of(codes[:, back]).T)
            parts["g_idx"] = entry("I32", (back // 32).astype(np.int32))

    model = open_artifact(write_packed(tmp_path, SOURCE, "gptq", in_order))
    assert check_weights(SOURCE.weight(f"{UP}.weight"), model.weight(f"{UP}.weight")).explained
    codes, scales, zeros = integers(values_of(UP)[:, order])
    wrong = with_values(UP, read(codes[:, np.argsort(order)], scales, zeros.astype(np.float32)))
    assert best(UP, model, wrong).cause == "scale_order"


@pytest.mark.parametrize(
    ("case", "cause", "order", "power"),
    [
        ("ct nvfp4", "reciprocal_scale", None, 2),
        ("ct nvfp4", "scaled", None, 1),
        ("ct mxfp4", "nibble_order", np.r_[0:32:2, 1:32:2], 0),
    ],
)
def test_floats_of_4_bits(tmp_path, case, cause, order, power):
    """The scale of the tensor multiplied with or left out, and pairs in a byte read as halves of a block."""
    packed = open_model(write_case(tmp_path, case)).weight(WEIGHT)
    taken, divisor = packed.stored.taken(np.arange(32)), packed.stored.scales.divisor or np.float32(1)
    codes = taken.codes if order is None else taken.codes.reshape(32, -1, 32)[:, :, order].reshape(32, -1)
    values = packed.stored.levels[codes] * taken.scales * divisor**power
    a, b = (MemoryModel(PLAIN.config, {WEIGHT: w}) for w in (packed, float_tensor(WEIGHT, values)))
    causes = weight_causes(WEIGHT, a, b, check_weights(a.weight(WEIGHT), b.weight(WEIGHT)))
    assert (causes[0].cause, causes[0].explained) == (cause, True), causes[0]
