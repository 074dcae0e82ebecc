"""The experiments of the lab: published figures as literal numbers, and what stands beside them."""

from pathlib import Path

import numpy as np
import pytest

from kernels.errors import WorkbenchError
from tests.artifacts import tiny_gguf
from workbench.demo import MODEL
from workbench.lab import experiments as experiments_package
from workbench.lab.experiment import Parameter, perform
from workbench.lab.experiments import experiment, experiments
from workbench.lab.experiments.block_scale import SCALES
from workbench.lab.experiments.ledger import Factor, warnings
from workbench.lab.experiments.vector import _Parts
from workbench.lab.inputs import activation, q4_k_weight
from workbench.lab.subject import open_subject
from workbench.lab.two_paths import folded, relative

TOKENS = (482, 803, 10, 67, 14, 310, 307)


def made(name: str, **given: object) -> dict:
    return perform(experiment(name), given).to_json()


def on_model(name: str, tokens=TOKENS, layer=None, stage=None, **given: object) -> dict:
    subject = open_subject((MODEL,), (None, None), tokens, None, layer, stage)
    return perform(experiment(name), given, subject).to_json()


def percents(found: dict, key: str = "rel") -> list[str]:
    return [f"{100 * row[key]:.6f}" for row in found["series"]]


@pytest.mark.parametrize("name", [known.id for known in experiments() if known.on != "model"])
def test_every_published_figure_comes_out_with_two_ways_to_look_at_it(name):
    found = made(name)
    assert found["reproduced"] in (True, None)
    assert (found["reproduced"] is None) == (found["published"] is None)
    assert {"vector_rel_rms", "cancellation"} <= found["against"].keys()
    assert found["hides"].endswith(".")
    assert len(found["series"]) > 0


def test_one_product_differs_by_the_published_bits():
    found = made("path-difference")
    assert (found["bits_a"], found["bits_b"]) == ("0xc69384e3", "0xc693a21e")
    assert f"{found['value']:.6%}" == "0.077401%"
    assert found["verdict"] == "CONFIRMED"


def test_the_chain_rises_and_falls_where_one_number_was_published():
    found = made("009")
    assert percents(found) == ["0.065441", "0.194252", "0.487127", "1.343577", "0.439143"]
    assert (f"{found['growth']:.4f}", found["peak_step"]) == ("5.7032", 4)


def test_other_depths_are_the_same_series():
    assert made("chain", depth="3")["series"] == made("009")["series"][:3]


def test_the_scale_of_a_block_changes_nothing_digit_for_digit():
    found = made("010")
    published = ["0.091873", "0.091873", "0.091924", "0.092017", "0.091932", "0.091932", "0.091966"]
    assert percents(found) == published
    assert found["verdict"] == "FALSIFIED"


def test_the_scalar_order_of_sums_gives_the_digits_known_for_it():
    digits = []
    for d in SCALES.values():
        x, weight = activation(), q4_k_weight(1, d=d, dmin=b"\x00\x00")
        sums = _Parts(x, weight, "APR Q8_K").one_by_one()
        digits.append(f"{100 * relative(folded(x, weight), sums)[0]:.6f}")
    assert digits == ["0.091885", "0.091873", "0.091943", "0.092001", "0.091913", "0.091913", "0.091956"]


def test_a_saturated_softmax_damps_and_one_near_a_tie_does_not():
    found = made("softmax")
    assert (f"{found['input_rel']:.6%}", f"{found['output_rel']:.6%}") == ("0.051333%", "0.000578%")
    assert f"{found['amplification']:.4f}" == "0.0113"
    assert max(row["amplification"] for row in found["series"]) > 3.6


def test_a_longer_q_makes_the_score_longer_by_the_same():
    found = made("rope")
    assert (f"{found['score']:.7f}", f"{found['score_changed']:.5f}") == ("5.2455316", "5.24957")
    assert f"{found['value']:.5f}" == "0.99986"


def test_seven_tokens_have_the_published_differences_and_spreads():
    found = made("013")
    digits = ["0.439143", "0.246297", "0.020914", "0.028250", "0.023573", "0.024674", "0.020246"]
    assert percents(found) == digits
    assert (f"{found['std_a']:.8f}", f"{found['std_b']:.8f}") == ("0.03341647", "0.03222812")
    assert (f"{found['value']:.4f}", f"{found['std_ratio_dev']:.6f}") == ("0.2613", "0.036873")


def test_a_norm_hands_on_a_share_and_amplifies_what_an_outlier_hid():
    found = made("rmsnorm")
    assert 0.99999 <= found["value"] < 1
    assert found["series"][-1]["alike_weighted"] > 100


def test_most_orders_of_a_sum_have_other_bits_than_the_two_that_agree():
    found = {row["order"]: row for row in made("006")["series"]}
    assert found["left to right"]["bits"] == found["eight lanes"]["bits"] == "0x44191e70"
    assert found["200 at random"]["same_bits"] < 0.5


def test_vector_code_is_its_own_order_and_scales_in_wrong_pairs_are_not():
    rows = {row["order"]: row for row in made("vector")["series"]}
    assert rows["its order, one by one"]["same_bits"] == 1
    assert rows["scales exchanged in pairs"]["same_bits"] == 0


@pytest.mark.parametrize(("heads", "kv_heads", "ratio"), [("28", "4", "7:1"), ("9", "3", "3:1"), ("6", "6", "1:1")])
def test_every_head_reads_its_group(heads, kv_heads, ratio):
    found = made("heads", heads=heads, kv_heads=kv_heads, head_dim="16", tokens="3")
    assert found["inputs"]["ratio"] == ratio
    assert found["value"] < 1e-6
    assert (found["heads_that_tell"] > 0) == (ratio != "1:1")  # where no grouping could show, nothing was shown


def test_the_ledger_shows_what_is_left_and_why_the_factors_are_none():
    found = made("ledger")
    assert f"{found['product_first']:.4f}" == "1.2201"
    assert (f"{found['residual_first']:.1f}", f"{found['residual_second']:.1f}") == ("14.1", "44.5")
    assert f"{found['residual_alike_first']:.2f}" == "0.20"  # like for like there is less to explain than "explained"
    assert any("008^-2 × 009 × 013 × 014" in sentence for sentence in found["warnings"])
    assert any("not over one population" in sentence for sentence in found["warnings"])


def test_factors_that_telescope_over_one_population_are_not_warned_of():
    assert list(warnings((Factor("whole", 2.0, "009"),))) == []


def test_own_factors_are_multiplied_and_told_apart_from_measured_ones():
    found = made("ledger", factors="0.5,0.1", observed="2")
    assert found["value"] == pytest.approx(40)
    assert found["reproduced"] is None
    assert "nothing says over which population" in found["warnings"][0]


def test_all_tokens_against_the_last_is_the_published_finding():
    assert f"{made('scope')['value']:.2f}" == "18.23"


def test_scope_on_a_model_makes_a_finding_of_nothing():
    found = on_model("scope", layer=1)
    (row,) = [row for row in found["series"] if row["layer"] == 1]
    assert found["value"] == row["unlike"] == pytest.approx(row["all_a"] / row["last_b"])
    assert found["value"] > 3
    assert found["alike"] == pytest.approx(1, abs=0.01)
    assert found["verdict"] == "CONFIRMED"


@pytest.mark.parametrize("name", [known.id for known in experiments() if known.on == "model"])
def test_what_needs_a_model_says_so_and_runs_on_any(name):
    with pytest.raises(WorkbenchError, match="needs a model; give A"):
        made(name)
    found = on_model(name, tokens=None, rows="16")
    assert found["reproduced"] is None
    assert found["against"]["vector_rel_rms"] < 0.01  # while single rows are off by more
    assert max(row["rel"] for row in found["series"]) > 0.01


@pytest.mark.parametrize("type", ["F32", "BF16", "Q8_0", "Q5_0", "Q6_K"])
@pytest.mark.parametrize("name", ["rows", "layers"])
def test_models_of_any_type_have_two_ways(tmp_path, type, name):
    tiny_gguf(tmp_path / "model.gguf", "llama", type)
    subject = open_subject((tmp_path / "model.gguf",), (None, None), None, None)
    found = perform(experiment(name), {"rows": "8"}, subject).to_json()
    assert found["inputs"]["path"] == ("apr" if type == "Q6_K" else "ggml")
    assert (found["against"]["vector_rel_rms"] < 1e-5) == (type == "F32")


def test_layers_are_measured_one_by_one_and_not_chained():
    found = on_model("layers", tokens=None)
    for row in found["series"]:
        assert row["rel"] == pytest.approx(row["alone"], rel=0.01)
    assert found["against"]["carried"] < 1e-4


def test_a_row_that_cancels_more_differs_more():
    rows = on_model("rows", tokens=None)["series"]
    least = sorted(rows, key=lambda row: row["cancellation"])
    quarter = len(rows) // 4
    assert np.median([r["rel"] for r in least[:quarter]]) > 5 * np.median([r["rel"] for r in least[-quarter:]])


def test_published_and_captured_activations_are_told_apart():
    captured = on_model("014", activations="captured")
    assert captured["inputs"]["tokens"] == list(TOKENS)
    assert captured["value"] != on_model("014", tokens=None)["value"]


def test_a_model_on_one_path_is_the_same_as_itself():
    subject = open_subject((MODEL, MODEL), ("ggml", "ggml"), TOKENS, None, 2, None)
    found = perform(experiment("008"), {}, subject).to_json()
    assert (found["value"], found["verdict"]) == (0, "FALSIFIED")


@pytest.mark.parametrize("name", [known.id for known in experiments() if known.on == "either"])
def test_experiments_are_tried_on_captured_values(name):
    found = on_model(name)
    assert found["reproduced"] is None or name == "ledger"
    if name != "ledger":
        assert found["inputs"]["a"] == MODEL.name
        assert found["inputs"]["population"]


@pytest.mark.parametrize("name", ["008", "013", "017", "heads"])
def test_results_have_the_same_bits_for_one_thread_and_two(name, monkeypatch):
    found = []
    for threads in ("1", "2"):
        monkeypatch.setenv("WORKBENCH_THREADS", threads)
        found.append(on_model(name))
    assert found[0] == found[1]


def test_names_of_a_cell_are_checked():
    with pytest.raises(WorkbenchError, match="layers 0 to 5"):
        on_model("008", layer=6)
    with pytest.raises(WorkbenchError, match="is about one of"):
        on_model("rmsnorm", stage="ffn_up")
    with pytest.raises(WorkbenchError, match="names no stage"):
        on_model("rmsnorm", stage="\x1b[31m")
    with pytest.raises(WorkbenchError, match="two tokens or more"):
        on_model("softmax", tokens=(5,))


COUNT = Parameter("count", 5, "", 1, 64)


@pytest.mark.parametrize(
    "text", ["0", "65", "-1", "1e3", "5.0", " ", "", "٣", "5\n6", "0x5", "9" * 5000, "\x1b]0;x\x07", "nan", "5_0"]
)
def test_a_hostile_whole_number_is_refused_in_one_printable_sentence(text):
    with pytest.raises(WorkbenchError, match="--set count=") as caught:
        COUNT.read(text)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("text", ["inf", "nan", "1e999", "-1e5", "1e-400x", "1,2", "=5", "1e12345"])
def test_a_hostile_number_is_refused(text):
    with pytest.raises(WorkbenchError, match="give a number from 0 to 100"):
        Parameter("size", 1.0, "", 0, 100).read(text)


def test_lists_are_bounded():
    many = Parameter("factors", (), "", 0, 10)
    assert many.read("1, 2.5,3e0") == (1.0, 2.5, 3.0)
    for text in (",".join(["1"] * 33), "1,,2", "1,11", ""):
        with pytest.raises(WorkbenchError, match="1 to 32 numbers"):
            many.read(text)


def test_unknown_parameters_and_those_of_the_other_input_are_named():
    with pytest.raises(WorkbenchError, match="no parameter of that name; did you mean depth"):
        made("009", deep="3")
    with pytest.raises(WorkbenchError, match="about the published input; leave it out"):
        on_model("softmax", logit="3")


def test_experiments_have_one_name_each_and_what_the_list_says():
    names = [name for known in experiments() for name in {known.id, known.word}]
    assert len(names) == len(set(names))
    words = {"path-difference", "block-scale", "chain", "softmax", "rope", "rmsnorm", "tokens", "rows", "layers"}
    assert words | {"heads", "scope", "ledger"} | {f"{n:03}" for n in range(5, 18)} <= set(names)


def test_the_documentation_lists_every_experiment():
    table = (Path(__file__).parents[2] / "docs/lab.md").read_text()
    for known in experiments():
        assert f"| `{known.id}`" in table
        assert f"`{known.word}`" in table


def test_a_file_in_the_folder_is_an_experiment(tmp_path, monkeypatch):
    source = Path(experiments_package.__path__[0], "chain.py").read_text()
    (tmp_path / "another.py").write_text(source.replace('"009"', '"099"').replace('word="chain"', 'word="another"'))
    monkeypatch.setattr(experiments_package, "__path__", [*experiments_package.__path__, str(tmp_path)])
    experiments.cache_clear()
    try:
        assert f"{made('another', depth=2)['value']:.6f}" == "0.001943"
    finally:
        experiments.cache_clear()


@pytest.mark.parametrize("name", ["softmax", "rope", "rmsnorm"])
def test_what_is_hidden_on_a_model_is_told_of_the_model(name):
    assert on_model(name)["hides"] != made(name)["hides"]
