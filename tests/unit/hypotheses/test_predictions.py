"""Predictions: what parses, what it means, what is refused at which character, and what is not known."""

import math
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.stages import Site
from workbench.cells.view import TokenScope
from workbench.lab.predictions.errors import PredictionError
from workbench.lab.predictions.evaluation import Evaluation, Measured, Unknown
from workbench.lab.predictions.prediction import read_prediction, read_step, read_value
from workbench.lab.predictions.questions import OfBisection, OfCell, OfConfig, OfLab, OfLogits, OfRule, OfTensor
from workbench.lab.predictions.syntax import MAX_DEPTH, MAX_LENGTH, MAX_SIZE

KNOWN = {"one": 1, "two": 2.0, "half": 0.5, "zero": 0, "nan": math.nan, "huge": 1e308, "inf": math.inf}
TEXTS = {"word": "alike", "yes": True, "no": False}


class Values:
    """Answers `lab("NAME").value` with a known value; anything else is not measured."""

    def __init__(self):
        self.asked = []

    def answer(self, question):
        self.asked.append(question)
        known = KNOWN | TEXTS
        if isinstance(question, OfLab) and question.name in known:
            return Measured(known[question.name])
        return Measured(None, "nobody measured it")


def value(source: str):
    """What an expression comes to, where a word stands for a measurement: `two` or `unknown`."""
    for name in (*KNOWN, *TEXTS, "unknown"):
        source = source.replace(f"${name}", f'lab("{name}").value')
    return Evaluation(Values()).of(read_prediction(source))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("1 + 2 * 3 == 7", True),
        ("(1 + 2) * 3 == 9", True),
        ("7 - 2 - 1 == 4", True),
        ("8 / 4 / 2 == 1", True),
        ("-2 * -3 == 6", True),
        ("2 - -1 == 3", True),
        ("1e3 == 1000 and .5 == 0.5", True),
        ("abs(-3) == 3 and min(3, 1, 2) == 1 and max(3, 1, 2) == 3", True),
        ("1 < 2 < 3", True),
        ("1 < 3 < 2", False),
        ("1 < 2 == 2 >= 2 > 1 != 0", True),
        ("not 1 < 2", False),
        ("not not 1 < 2", True),
        ("1 > 2 or 1 < 2 and 2 < 3", True),
        ("not 1 > 2 and 1 < 2", True),
        ("$two == 2 and $word == 'alike' and $yes", True),
        ('$word != "other"', True),
        ("not $no", True),
    ],
)
def test_expressions_mean_what_arithmetic_and_logic_say(source, expected):
    assert value(source) is expected


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_arithmetic_is_that_of_an_independent_evaluator(data):
    """Python's own evaluation of the same text; division apart, which has its own test."""
    number = st.integers(0, 99).map(str)
    grown = st.recursive(
        number,
        lambda inner: st.one_of(
            st.tuples(inner, st.sampled_from(["+", "-", "*"]), inner).map(" ".join),
            inner.map("({})".format),
            inner.map("-{}".format),
            st.tuples(inner, inner).map(lambda pair: f"max({pair[0]}, {pair[1]})"),
        ),
        max_leaves=12,
    )
    text = f"{data.draw(grown)} {data.draw(st.sampled_from(['<', '<=', '==', '!=', '>', '>=']))} {data.draw(grown)}"
    assert value(text) is eval(text)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("$unknown > 1", None),
        ("not $unknown > 1", None),
        ("$unknown > 1 and 1 > 2", False),
        ("1 > 2 and $unknown > 1", False),
        ("$unknown > 1 and 1 < 2", None),
        ("$unknown > 1 or 1 < 2", True),
        ("1 < 2 or $unknown > 1", True),
        ("$unknown > 1 or 1 > 2", None),
        ("2 < 1 < $unknown", False),
        ("$unknown < 2 < 1", False),
        ("1 < 2 < $unknown", None),
        ("$unknown == $unknown", None),
        ("$unknown - $unknown == 0", None),
        ("0 * $unknown == 0", None),
        ("min(1, $unknown) <= 1", None),
        ("abs($unknown) >= 0", None),
        ("$nan == $nan", None),
        ("$one / $zero > 1", None),
        ("$huge * 10 > 1", None),
        ("$inf > 1", True),
        ("$inf - $inf == 0", None),
        ("$word > 1", None),
        ("$word == 1", None),
        ("$yes > $no", None),
        ("$word and 1 < 2", None),
    ],
)
def test_what_was_not_measured_is_neither_true_nor_false(source, expected):
    found = value(source)
    if expected is None:
        assert isinstance(found, Unknown)
        assert found.why
    else:
        assert found is expected


def test_what_decides_nothing_is_not_measured_and_nothing_is_measured_twice():
    values = Values()
    source = 'lab("zero").value > 1 and lab("one").value > 0 or lab("two").value > 1 and lab("two").value < 3'
    assert Evaluation(values).of(read_prediction(source)) is True
    assert [question.name for question in values.asked] == ["zero", "two"]


def test_names_and_what_they_ask_for():
    asked = {
        'cell(3, "ffn_gate").rel_rms > 1': OfCell(Site(3, "ffn_gate"), TokenScope("all"), "rel_rms"),
        'cell(3, "ffn_gate", "last").max_at.channel > 1': OfCell(
            Site(3, "ffn_gate"), TokenScope("last"), "max_at.channel"
        ),
        'cell("lm_head", 2).cosine > 1': OfCell(Site(None, "lm_head"), TokenScope("one", 2), "cosine"),
        "tensor('model.norm.weight').worst_row_rel_rms > 1": OfTensor("model.norm.weight", "worst_row_rel_rms"),
        "logits().kl > 1": OfLogits(TokenScope("all"), "kl_b_a_mean"),
        'config("B", "rope_theta") > 1': OfConfig(1, "rope_theta"),
        'lab("009", depth=12, stage="ffn_out").growth > 1': OfLab("009", {"depth": 12}, None, "ffn_out", "growth"),
        'rule("parity/weights").measured > 1': OfRule("parity", "weights", "measured"),
        "bisect().culprit.shares.weights > 1": OfBisection("culprit.shares.weights"),
    }
    for source, question in asked.items():
        (found,) = read_prediction(source).asked.values()
        assert found.question == question, source


@pytest.mark.parametrize(
    ("source", "at", "what"),
    [
        ("", 0, "there is nothing to read"),
        ("1 < ", 3, "expected here, not the end"),
        ("1 << 2", 3, "not '<'"),
        ("1 = 1", 2, "write =="),
        ("1 < 2)", 5, "an operator is expected here"),
        ("(1 < 2", 6, "a closing bracket is expected here, not the end"),
        ("1 < 2 and", 9, "not the end"),
        ("1 < 2 < 'x", 8, "this string is not closed"),
        ("1 < 2x", 5, "something else follows at once"),
        ("1 < 2.3.4", 7, "something else follows at once"),
        ("1 < @", 4, "this character means nothing here"),
        ("1 < 1e999", 4, "larger than any"),
        ("1", 0, "neither true nor false"),
        ("3 + 'x' > 2", 4, "+ is of numbers, and this is a string"),
        ("'a' < 'b'", 4, "< is of numbers"),
        ("1 < 2 and 3", 10, "this is a number"),
        ("not 'x'", 4, "this is a string"),
        ("abs(1, 2) > 1", 0, "abs is of one number"),
        ("max(1) > 1", 0, "max is of two numbers or more"),
        ("bisect.verdict == 'x'", 6, "an opening bracket"),
        ("eval('1') > 1", 0, "eval is nothing to ask for"),
        ("__import__('os').system('id') > 1", 23, "an operator is expected here"),
        ("bisect().__class__ == 'x'", 9, "bisect has no __class__"),
        ('cell(3, "ffn_gate") > 1', 0, "say which figure of cell"),
        ('cell(3, "ffn_gate").rel_rsm > 1', 20, "did you mean rel_rms"),
        ('cell(3, "ffn_gaet").rel_rms > 1', 8, "did you mean ffn_gate"),
        ('cell(-1, "ffn_gate").rel_rms > 1', 5, "a whole number from 0"),
        ('cell(1.5, "ffn_gate").rel_rms > 1', 5, "a whole number from 0"),
        ('cell("ffn_gate").rel_rms > 1', 5, "belongs to a layer"),
        ('cell(3, "lm_head").rel_rms > 1', 8, "belongs to no layer"),
        ('cell(3, "ffn_gate", "first").rel_rms > 1', 20, 'tokens are "all", "last"'),
        ('cell(3, "ffn_gate", "last").floors > 1', 28, "over all tokens only"),
        ('cell(3, "ffn_gate").max_at > 1', 20, "it has a, b, channel, token"),
        ('cell(3, "ffn_gate").status > 1', 29, "this is a number, and is compared with a string"),
        ("tensor(3).rel_rms > 1", 7, "in quotes"),
        ('config("c", "rope_theta") > 1', 7, "is not a side"),
        ('config("a", "rope_thta") > 1', 12, "did you mean rope_theta"),
        ('config("a", "layer_types") > 1', 12, "is a list"),
        ('config("a", "rope_type") > 1', 27, "compared with a string"),
        ('config("a", "rope_theta").x > 1', 26, "no figures"),
        ('lab("009", depth=2, depth=3).value > 1', 20, "depth is given twice"),
        ('lab("009", depth=lab).value > 1', 17, "a number or a string is expected"),
        ('lab("009", 3).value > 1', 11, "parameter=value"),
        ('rule("parity/").verdict == "met"', 5, "CONTRACT/ID"),
        ('cell(3, "ffn_gate").max_abs > tensor("x").max_abs', 30, "only like units"),
        ('cell(3, "ffn_gate").max_abs + cell(3, "ffn_gate").rel_rms > 1', 30, "like units"),
        ("logits().kl > bisect().floor", 14, "only like units"),
        ('1 < 2 and\ncell(3, "ffn_gate").rel > 1', 30, "(at line 2, character 21)"),
    ],
)
def test_what_is_wrong_is_told_with_the_character(source, at, what):
    with pytest.raises(PredictionError) as found:
        read_prediction(source)
    assert what in str(found.value)
    assert found.value.at == at
    line, caret = found.value.pointed
    begin = source.rfind("\n", 0, at) + 1
    assert line == source[begin:].split("\n")[0]
    assert caret == " " * (at - begin) + "^"


def test_like_units_and_plain_numbers_go_together():
    for source in (
        'cell(3, "ffn_gate").max_abs > 2 * cell(2, "ffn_gate").std_a + 1',
        'cell(3, "ffn_gate").max_abs / cell(3, "ffn_gate").std_b > tensor("x").rel_rms',
        'bisect().culprit.layer < config("a", "num_hidden_layers")',
        'lab("x").value > logits().kl and lab("x").value > 1',
    ):
        read_prediction(source)


@pytest.mark.parametrize(
    "source",
    [
        "(" * 100_000,
        "(" * (MAX_SIZE // 2 - 2) + "1" + ")" * (MAX_SIZE // 2 - 2),
        "-" * (MAX_SIZE - 2) + "1",
        "not " * (MAX_SIZE - 2) + "1",
        "1" + "+1" * (MAX_SIZE // 2 - 1),
        "abs(" * (MAX_DEPTH + 1) + "1" + ")" * (MAX_DEPTH + 1),
        "1" + "<1" * MAX_SIZE,
        "1 " * MAX_SIZE * 2,
        "9" * MAX_LENGTH,
        "9" * 10 * MAX_LENGTH,
        "'" * MAX_LENGTH,
        "a." * 1900,
        "\x1b" * 3000,
        'lab("x"' + ", a=1" * 500 + ").value > 1",
    ],
    ids=lambda source: source[:12],
)
def test_any_depth_and_size_is_refused_quickly(source):
    started = time.perf_counter()
    with pytest.raises(PredictionError) as found:
        read_prediction(source)
    assert time.perf_counter() - started < 0.5
    assert len(str(found.value)) < 300
    assert str(found.value).isprintable()


@settings(max_examples=300, deadline=None)
@given(
    st.text(max_size=80)
    | st.lists(st.sampled_from([*"()<>=+-*/,.'\"1 ", "and ", "cell", "lab"]), max_size=40).map("".join)
)
def test_any_text_is_read_or_refused_in_a_sentence_that_shows_safely(source):
    try:
        found = Evaluation(Values()).of(read_prediction(source))
    except PredictionError as error:
        found, shown = True, (str(error), *error.pointed)
    else:
        shown = ()
    assert isinstance(found, bool | Unknown)
    assert all(text.isprintable() for text in shown)


def test_a_ladder_grades_a_number_against_like_units():
    grade = read_value('cell(3, "ffn_gate").max_abs')
    assert read_step("> 5", grade).sign == ">"
    for text, at, what in (
        ("5", 0, "begins with one of"),
        ("> 'x'", 2, "compared with a string"),
        ("> logits().kl", 2, "units of activations"),
        ("> 5 6", 4, "an operator"),
    ):
        with pytest.raises(PredictionError) as found:
            read_step(text, grade)
        assert (found.value.at, what in str(found.value)) == (at, True), text
    with pytest.raises(PredictionError, match="grades a number"):
        read_value("1 < 2")
