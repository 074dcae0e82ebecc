"""From an element of a matmul down to the bytes and back: the same bits as the kernels."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels.errors import WorkbenchError
from kernels.forward import forward
from kernels.kinds.product import Product
from kernels.models import Graph
from kernels.paths import numeric_path
from kernels.rows.dequantize import dequantize
from kernels.stages import Site
from kernels.weight import TensorType
from store.open import open_artifact
from tests.artifacts import tiny_gguf, tiny_model
from tests.foreign_dumps import run as stages_of
from tests.foreign_dumps import write_llama_dump
from tests.random_weights import random_weight
from workbench.__main__ import run
from workbench.bisect.models.element import element, fma
from workbench.bisect.models.element_text import element_text
from workbench.bisect.weights.blocks import read_block
from workbench.demo import MODEL
from workbench.session.session import Session

TYPES = [type.name for type in TensorType if type.block.elements > 1]
TOKENS = (3, 1, 4, 1, 5)


@pytest.mark.parametrize("name", TYPES)
def test_a_block_taken_apart_stands_for_its_dequantized_values(name):
    weight = random_weight(1, TensorType[name], 3, 512)
    elements, size = weight.type.block
    values = dequantize(weight)
    for row in range(3):
        for n in range(512 // elements):
            block = read_block(weight.type, weight.rows[row, n * size : (n + 1) * size].tobytes())
            expected = values[row, n * elements : (n + 1) * elements]
            assert (block.values.view(np.uint32) == expected.view(np.uint32)).all()


@pytest.mark.parametrize("path", ["ggml", "apr", "f32"])
@pytest.mark.parametrize("name", [type.name for type in TensorType])
def test_every_product_is_computed_again_bit_for_bit(name, path):
    model = tiny_model("qwen2", name, layers=1)
    values = dict(forward(model, TOKENS, numeric_path(path)))
    rng = np.random.default_rng(0)
    for stage in Graph.of(model).stages():
        if isinstance(stage.kind, Product):
            site, y = stage.site, values[stage.site]
            x = values[Graph.of(model).reads(stage)["x"]]
            for channel in rng.choice(y.shape[1], 4, replace=False):
                found = element(model, numeric_path(path), site, x[2], int(channel))
                assert found.exact_order == (path != "ggml" or model.weight(stage.weights[0]).type.block.elements > 1)
                if found.exact_order:
                    assert found.value.tobytes() == y[2, channel].tobytes(), (site, channel)
                assert found.value == pytest.approx(float(y[2, channel]), rel=1e-4, abs=1e-5)
                assert found.value == pytest.approx(sum(t.partial for t in found.terms), rel=1e-4, abs=1e-4)


def test_in_float64_the_sum_says_that_it_is_in_no_certain_order():
    model, path = tiny_model("llama", "F16", layers=1), numeric_path("f64")
    values = dict(forward(model, TOKENS, path))
    site = Site(0, "ffn_out")
    found = element(model, path, site, values[Site(0, "ffn_swigl")][1], 5)
    assert not found.exact_order
    assert found.value == pytest.approx(float(values[site][1, 5]), rel=1e-5, abs=1e-7)


def test_offsets_lead_to_the_very_bytes_of_the_file():
    model = open_artifact(MODEL)
    path = numeric_path("ggml")
    x = np.linspace(-1, 1, 256, dtype=np.float32)
    found = element(model, path, Site(3, "qkv_matmul"), x, model.config.q_size + 7)
    assert found.tensor == "model.layers.3.self_attn.k_proj.weight"
    assert found.row == found.stored_row == 7
    content = MODEL.read_bytes()
    for term in found.terms:
        assert content[term.offset : term.offset + len(term.block.raw)] == term.block.raw


def test_rows_that_a_file_stores_in_another_order_are_found_there(tmp_path):
    tiny_gguf(tmp_path / "m.gguf", "llama", "Q8_0")
    model = open_artifact(tmp_path / "m.gguf")
    assert model.permuted("model.layers.1.self_attn.q_proj.weight")
    content = (tmp_path / "m.gguf").read_bytes()
    x = np.linspace(-1, 1, model.config.hidden_size, dtype=np.float32)
    moved = 0
    for channel in range(model.config.q_size):
        found = element(model, numeric_path("ggml"), Site(1, "qkv_matmul"), x, channel)
        term = found.terms[0]
        assert content[term.offset : term.offset + 34] == term.block.raw
        moved += found.stored_row != found.row
    assert moved > model.config.q_size // 2


def test_what_is_no_product_has_no_bytes():
    model, path = tiny_model(layers=1), numeric_path("f32")
    with pytest.raises(WorkbenchError, match="layer 0 ffn_silu is no product with a weight"):
        element(model, path, Site(0, "ffn_silu"), np.zeros(96, np.float32), 0)
    with pytest.raises(WorkbenchError, match="has no channel 96; give one from 0 to 95"):
        element(model, path, Site(0, "ffn_gate"), np.zeros(64, np.float32), 96)


floats = st.floats(-(2.0**20), 2.0**20, width=32)


def nearest(value: Fraction) -> np.float32:
    """The float32 nearest to a rational, ties to even, by asking its neighbours."""
    start = np.float32(float(value))
    around = [np.nextafter(start, np.float32(-np.inf)), start, np.nextafter(start, np.float32(np.inf))]
    return min(around, key=lambda x: (abs(Fraction(float(x)) - value), x.view(np.int32) & 1))


@given(floats, floats, floats, st.integers(-40, 40))
def test_fma_rounds_once(a, b, c, shift):
    a, b, c = np.float32(a), np.float32(b), np.float32(c * 2.0**shift)
    exact = Fraction(float(a)) * Fraction(float(b)) + Fraction(float(c))
    found = fma(a, np.array([b]), np.array([c]))[0]
    if abs(exact) >= Fraction(2) ** -100:
        assert found == nearest(exact)


def test_fma_where_rounding_twice_goes_wrong():
    a, c = np.float32(1 + 2**-12), np.float32(2**-60)
    b = np.array([1 + 2**-12], np.float32)  # the product is a tie in float32 but for c, which float64 cannot hold
    assert fma(a, b, np.array([c]))[0] == nearest(Fraction(float(a)) * Fraction(float(b[0])) + Fraction(float(c)))


def test_a_trace_is_explained_with_the_weights_of_the_model_beside_it(tmp_path, capsys):
    tiny_gguf(tmp_path / "m.gguf", "qwen2", "Q8_0")
    model = open_artifact(tmp_path / "m.gguf")
    stages, site = stages_of(model, TOKENS, "ggml"), Site(1, "ffn_up")
    nudged, moved = (stages[site].copy() for _ in range(2))
    nudged[1, 9] = np.nextafter(nudged[1, 9], np.float32(9))
    moved[1, 9] *= np.float32(1.001)
    for number, (values, words) in enumerate(
        (
            (stages[site], "equal, bit for bit"),
            (nudged, "equal but for the last bits: another order of sums"),
            (moved, "NOT EQUAL"),
        )
    ):
        write_llama_dump(tmp_path / "dump.npz", model, stages | {site: values}, TOKENS)
        place = tmp_path / str(number)
        command = ["open", tmp_path / "m.gguf", tmp_path / "dump.npz", "--session", place, "--json"]
        assert run([*map(str, command)]) in (0, 1), capsys.readouterr().err
        a, b = "\n".join(element_text(Session.open(place), site, 1, 9)).split("\nB  ")
        assert "equal, bit for bit" in a
        assert b.startswith("a trace of llama.cpp, with the weights of the model beside it")
        assert words in b
