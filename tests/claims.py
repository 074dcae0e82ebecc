"""Claims about the demo pair, as tests write them and look at what became of them."""

import json
from pathlib import Path

from workbench.lab.hypotheses import read
from workbench.lab.standing import board_of
from workbench.session.session import Session

ROOT = Path(__file__).parents[1]
SCHEMA = json.loads((ROOT / "workbench/schemas/hypotheses.schema.json").read_text())
V_PROJ = "model.layers.3.self_attn.v_proj.weight"

CLAIMS = {
    1: f"""prediction: >-
  cell(3, "qkv_matmul").rel_rms > 20 * cell(2, "qkv_matmul").rel_rms
  and tensor("{V_PROJ}").rel_rms == 0
layer: 3
stage: qkv_matmul""",
    2: """prediction: config("a", "rope_theta") != config("b", "rope_theta")""",
    3: """prediction: bisect().culprit.layer == 3 and bisect().culprit.factor == "weights"
after: {hypothesis: 2, verdict: FALSIFIED}""",
    4: """after: {hypothesis: 3, verdict: CONFIRMED}
ladder: {value: "cell(3, 'qkv_matmul').rel_rms", confirmed: "> 5", partial: "> 0.5"}""",
    5: """prediction: rule("v-rows").verdict == "met" """,
    6: """prediction: config("a", "sliding_window") > 10""",
    7: """prediction: 1 < 2
after: {hypothesis: 2, verdict: CONFIRMED}""",
    8: """prediction: the rows are permuted""",
}
VERDICTS = {1: "CONFIRMED", 2: "FALSIFIED", 3: "CONFIRMED", 4: "PARTIAL", 5: "CONFIRMED"} | dict.fromkeys(
    (6, 7, 8), "UNTESTED"
)
CONTRACT = f"""contract: contract
version: 1
rules:
  - id: v-rows
    tensors: "{V_PROJ}"
    metric: cosine
    at_least: 0.999
"""
NOTE = "Free *text*, and\n---\nanother rule.\n"


def write_claims(session: Session, numbers=CLAIMS) -> None:
    for number in numbers:
        front = f"title: Claim {number}\nclaim: because\nstatus: UNTESTED\nmine: stays\n{CLAIMS[number]}\n"
        (session.hypotheses_folder / f"{number:02d}-claim.md").write_text(f"---\n{front}---\n{NOTE}")


def statuses(session: Session) -> dict[int, str]:
    return {each.number: each.status for each in board_of(Session.open(session.folder)).standings}


def stale(session: Session) -> set[int]:
    return {number for number, status in statuses(session).items() if status == "STALE"}


def of(session: Session, number: int):
    return read(session.hypotheses_folder / f"{number:02d}-claim.md")
