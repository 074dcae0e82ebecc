"""How to mend what was found: a sentence for every cause that an answer can have."""

import json
from importlib.resources import files

import pytest

from kernels.stages import Site
from workbench.bisect.fixes import FIXES, fix_of
from workbench.bisect.verdict import Culprit

SCHEMA = json.loads((files("workbench") / "schemas" / "bisect.schema.json").read_text())
CAUSES = SCHEMA["properties"]["culprit"]["properties"]["cause"]["enum"]


def test_there_is_a_fix_for_every_cause_and_for_nothing_else():
    assert set(FIXES) == set(CAUSES)


@pytest.mark.parametrize("cause", CAUSES)
def test_it_is_one_sentence(cause):
    sentence = fix_of(Culprit(Site(0, "ffn_up"), "weights", cause, "why"))
    assert sentence[0].isupper()
    assert sentence.endswith(".")
    assert ". " not in sentence
    assert sentence.isprintable()
