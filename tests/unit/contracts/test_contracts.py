"""Reading contracts: what is understood, what is refused with its line, and that nothing hostile gets through."""

import json
import math
from importlib.resources import files

import jsonschema
import pytest
import yaml

from workbench.bisect.verdict import EXIT_CODES
from workbench.lab.contracts.bounds import Equal, OnBothSides, Within
from workbench.lab.contracts.reading import SHIPPED, VERDICTS, ContractError, parse, read_contract
from workbench.lab.contracts.subjects import NO_ANSWERS, Layers
from workbench.lab.readings import OF_CELLS, OF_LOGITS, OF_TENSORS

SCHEMA = json.loads((files("workbench") / "schemas" / "contract.schema.json").read_text())
HEAD = "contract: c\nversion: 1\nrules:\n"


def contract(*rules):
    return HEAD + "".join(f"  - {{{rule}}}\n" for rule in rules)


def bound_of(text):
    return parse(contract(f"id: a, cells: {{stage: x}}, metric: rel_rms, {text}"), "c.yaml").rules[0].bound


def wrong(text):
    with pytest.raises(ContractError) as error:
        parse(text, "c.yaml")
    return str(error.value)


@pytest.mark.parametrize("name", SHIPPED)
def test_the_contracts_that_ship_follow_the_schema(name):
    jsonschema.validate(yaml.safe_load(SHIPPED[name].read_text()), SCHEMA)


def test_the_schema_names_what_the_program_knows():
    kinds = {next(iter(set(rule["required"]) - {"id", "metric"})): rule for rule in rules_of_schema()}
    metrics = {kind: set(rule["properties"]["metric"]["enum"]) for kind, rule in kinds.items() if "metric" in str(rule)}
    assert metrics == {"cells": set(OF_CELLS), "tensors": set(OF_TENSORS), "logits": set(OF_LOGITS)}
    assert set(SCHEMA["$defs"]["verdict"]["enum"]) == set(VERDICTS) == set(EXIT_CODES) - set(NO_ANSWERS)


def rules_of_schema():
    return SCHEMA["properties"]["rules"]["items"]["oneOf"]


@pytest.mark.parametrize(
    ("written", "value"),
    [("1e-3", 1e-3), ("1E-3", 1e-3), ("1", 1.0), (".5", 0.5), ("5.", 5.0), ("+1.5e2", 150.0), ("010", 10.0)],
)
def test_numbers_are_numbers_however_they_are_written(written, value):
    assert bound_of(f"at_most: {written}") == Within(high=value)


@pytest.mark.parametrize(
    "written", [".nan", ".inf", "-.inf", "nan", "1e999", "1_000", "1:30", "0x10", "'1'", "yes", "~"]
)
def test_what_is_no_finite_number_is_refused_with_its_line(written):
    assert wrong(contract(f"id: a, cells: {{stage: x}}, metric: rel_rms, at_most: {written}")).startswith(
        "c.yaml, line 4: "
    )


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("id: a, cells: {stage: x}, metric: rel_rms", "and this one has none of them"),
        ("id: a, cells: {stage: x}, metric: rel_rms, at_most: 1, at_least: 0", "both at_least and at_most"),
        ("id: a, cells: {stage: x}, at_most: 1", "a rule about cells needs a metric"),
        ("id: a, cells: {stage: x}, metric: loudness, at_most: 1", "metric 'loudness' is unknown; write one of"),
        ("id: a, tensors: x, metric: floors, at_most: 1", "metric 'floors' is unknown"),
        ("id: a, cells: {layers: all}, metric: rel_rms, at_most: 1", "cells needs a stage"),
        ("id: a, cells: {stage: x, layer: 3}, metric: rel_rms, at_most: 1", "'layer' is no field of cells"),
        ('id: a, cells: {stage: x, layers: "7-3"}, metric: rel_rms, at_most: 1', "layers '7-3' is none of"),
        ("id: a, cells: {stage: x, layers: [-1]}, metric: rel_rms, at_most: 1", "layer '-1' is not a layer number"),
        ("id: a, cells: {stage: x, layers: [0.5]}, metric: rel_rms, at_most: 1", "layer '0.5' is not a layer number"),
        ("id: a, cells: {stage: []}, metric: rel_rms, at_most: 1", "stage lists none"),
        ("id: a, cells: {stage: [x, x]}, metric: rel_rms, at_most: 1", "stage names one twice"),
        ("id: a, cells: {stage: x}, metric: rel_rms, within: [2, 1]", "larger number first"),
        ("id: a, cells: {stage: x}, metric: rel_rms, within: [2]", "within takes two numbers"),
        ("id: a, cells: {stage: x}, metric: rel_rms, equals: both", "'both' is no number"),
        ("id: a, cells: {stage: x}, tensors: x, metric: rel_rms, at_most: 1", "both cells and tensors"),
        ("id: a, metric: rel_rms, at_most: 1", "this one has none of them"),
        ("cells: {stage: x}, metric: rel_rms, at_most: 1", "a rule has no id"),
        ("id: 'a b', coverage: cells, at_least: 1", "the id of a rule has letters"),
        ("id: a, coverage: everything, at_least: 1", "coverage 'everything' is unknown"),
        ("id: a, coverage: cells, metric: rel_rms, at_least: 1", "a rule about coverage has no metric"),
        ("id: a, logits: {positions: first}, metric: kl, at_most: 1", "positions 'first' is unknown"),
        ("id: a, bisect: [alike, healthy]", "verdict 'healthy' is unknown"),
        ("id: a, bisect: [alike, undecided]", "undecided is no answer"),
        ("id: a, bisect: alike, equals: 1", "a rule about bisect lists its verdicts"),
        ("id: a, config: eps, equals: [1]", "equals takes a single value"),
        ("id: a, config: eps, equals: yes", "'yes' is no value that a setting has"),
        ("id: a, coverage: cells, at_least: 1, severity: low", "'severity' is no field of a rule"),
        ("id: a, coverage: cells, coverage: tensors, at_least: 1", "coverage is given twice"),
        ("id: a, coverage: cells, at_least: !!python/object:os.system 1", "is no kind of value that is read here"),
        ("id: a, ? [coverage] : cells, at_least: 1", "is no field of a rule"),
        ("id: a, tensors: " + "x" * 201 + ", metric: rel_rms, at_most: 1", "1 to 200 characters"),
    ],
)
def test_a_rule_that_cannot_be_meant_is_refused_with_its_line(rule, words):
    found = wrong(contract("id: first, coverage: cells, at_least: 1", rule))
    assert found.startswith("c.yaml, line 5: ")
    assert words in found


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("", 1, "is not a list of `name: value` fields"),
        ("- 1", 1, "is not a list of `name: value` fields"),
        ("contract: c\nversion: 1", 1, "there is no field rules"),
        ("contract: c\nversion: 2\nrules: []", 2, "version must be 1"),
        ("contract: c\nversion: 1\nrules: []", 3, "at least one rule"),
        (HEAD + "  - 7\n", 4, "a rule is not a list of"),
        (HEAD + "  - id: a\n    coverage: cells\n    at_least: 1\n    id: b\n", 7, "id is given twice"),
        (contract("id: a, coverage: cells, at_least: 1") * 2, 5, "contract is given twice"),
        (contract(*["id: a, coverage: cells, at_least: 1"] * 2), 5, "two rules have the id a, the other is in line 4"),
        (HEAD + "  - {id: a, cells: {stage: *}, metric: rel_rms, at_most: 1}\n", 4, "begins with * in quotes"),
        ("contract: &a c\nversion: 1\nrules: [*a]", 3, "aliases (*name) are not used here"),
        ("contract: c\n---\nversion: 1", 2, "it is not YAML"),
        ("contract: [", 1, "it is not YAML"),
        ("contract: c\nversion: \x07", 2, "control character"),
        ("[" * 5000, 1, "nested too deeply"),
        ("<<: {contract: c}\nversion: 1\nrules: []", 1, "'<<' is no field of a contract"),
    ],
)
def test_what_is_no_contract_is_refused_with_its_line(text, line, words):
    found = wrong(text)
    assert found.startswith(f"c.yaml, line {line}: ")
    assert words in found
    assert found.isprintable()


def test_a_bomb_of_aliases_a_huge_file_and_other_bytes_are_refused(tmp_path):
    bomb = "a: &a [x, x]\n" + "".join(f"{c}: &{c} [*{p}, *{p}]\n" for p, c in zip("abcdefgh", "bcdefghi", strict=True))
    assert "aliases" in wrong(bomb)
    for content, words in ((b"#" * (1 << 19), "more than"), (b"contract: \xff", "line 1: it is not UTF-8")):
        (tmp_path / "c.yaml").write_bytes(content)
        with pytest.raises(ContractError, match=words):
            read_contract(tmp_path / "c.yaml")
    for name in ("missing.yaml", "."):
        with pytest.raises(ContractError, match="the contracts that come by name are parity, strict"):
            read_contract(tmp_path / name)


def test_bounds_hold_at_their_ends_and_infinity_meets_none():
    within = bound_of("within: [0.5, 2]")
    assert [within.excess(value) > 0 for value in (0.49999, 0.5, 1, 2, 2.00001)] == [True, False, False, False, True]
    assert within.excess(0.1) > within.excess(2.3)  # the worst place is the one that is further off
    assert within.excess(1.245) > within.excess(0.9)
    assert [within.excess(v) > 0 for v in (math.nextafter(2, 3), math.nextafter(0.5, 0), 0.0, -1.0)] == [True] * 4
    for text in ("at_least: 0", "at_most: 1", "within: [0, 1]", "equals: 1"):
        assert all(bound_of(text).excess(value) > 0 for value in (math.inf, -math.inf))


def test_bounds_are_told_with_all_their_digits():
    texts = ("at_least: 0.99995", "at_most: 1e-6", "within: [0.5, 2.0]", "equals: 0")
    assert [bound_of(text).text for text in texts] == ["at least 0.99995", "at most 1e-06", "0.5 to 2", "equals 0"]


def test_a_setting_is_compared_as_what_it_is():
    def holds(wanted, value):
        return OnBothSides(Equal(wanted)).bound.excess(value) == 0

    assert holds(1e-6, 9.999999974752427e-07)  # as float32 keeps it
    assert not holds(1e-6, 1.1e-6)
    assert holds(True, True)
    assert not holds(1.0, True)
    assert holds("neox", "neox")
    assert not holds("neox", None)


@pytest.mark.parametrize(
    ("layers", "found", "problem"),
    [
        (Layers(), {None, 0, 1, 2}, ""),
        (Layers("last"), {2}, ""),
        (Layers("numbers", range(1, 3)), {1, 2}, ""),
        (Layers("numbers", (0, 9)), set(), "there is no layer 9; the last one is 2"),
    ],
)
def test_layers_are_those_of_the_pair(layers, found, problem):
    assert layers.of([0, 1, 2]) == (found, problem)
