"""Answering the questions of predictions about a session's pair, each with what the answer depends on."""

from collections.abc import Callable, Mapping
from functools import singledispatchmethod
from pathlib import Path
from typing import Any

from kernels.errors import WorkbenchError
from store.text import printable
from store.whole_files import read_bounded
from workbench.lab.bindings import (
    CAPTURE,
    MAX_CONTRACT,
    SIDES,
    TOKENS,
    Bindings,
    Show,
    contract_file,
    contract_key,
    line_key,
    path_key,
)
from workbench.lab.contracts import reading
from workbench.lab.contracts.checking import check
from workbench.lab.contracts.contract import Contract, Rule
from workbench.lab.contracts.subjects import NO_ANSWERS
from workbench.lab.measurements import ALL
from workbench.lab.predictions.evaluation import Measured
from workbench.lab.predictions.questions import (
    OfBisection,
    OfCell,
    OfConfig,
    OfLab,
    OfLogits,
    OfRule,
    OfTensor,
    Question,
)
from workbench.lab.readings import Reading
from workbench.lab.retractions import retracted_capture
from workbench.lab.session_measurements import OF_RUNNING_AGAIN, SessionMeasurements, at
from workbench.session.files import KEPT_CELLS, STORES
from workbench.session.session import Session

Bisect = Callable[[], tuple[Mapping[str, Any], int]]  # the answer as JSON, and its line in the log
_RUN = (*SIDES, *map(path_key, SIDES), TOKENS)
_OWN_CONTRACT = "contract"


class PairMeasuring:
    """Measures for predictions.

    bisect : gives the session's standing bisection, made if there is none. show : is told how far files are hashed.
    """

    def __init__(
        self, session: Session, pair: SessionMeasurements, bisect: Bisect, show: Show = lambda *_: None
    ) -> None:
        self.session, self.pair, self._bisect = session, pair, bisect
        self.bindings = Bindings(session, show)
        self._experiments: dict[str, dict[str, Any] | str] = {}
        self._found: tuple[Mapping[str, Any], int] | None = None

    def answer(self, question: Question) -> Measured:
        """Measure; what cannot be measured has no value and a sentence."""
        try:
            return self._answer(question)
        except WorkbenchError as error:
            return Measured(None, str(error))

    @singledispatchmethod
    def _answer(self, question: Question) -> Measured:
        raise NotImplementedError(question)

    def _measured(self, found: Reading, population: str, *used: str) -> Measured:
        return Measured(found.value, found.why, population, self.bindings.of_all(*used))

    @_answer.register
    def _cell(self, question: OfCell) -> Measured:
        again = question.key in OF_RUNNING_AGAIN
        if not again and (why := self._no_capture()):
            return Measured(None, why)
        found = self.pair.figure_of_cell(question.site, question.scope, question.key)
        return self._measured(found, self.pair.label(question.scope), *_RUN, *(() if again else (CAPTURE,)))

    @_answer.register
    def _logits(self, question: OfLogits) -> Measured:
        if why := self._no_capture():
            return Measured(None, why)
        found = self.pair.figure_of_logits(question.scope, question.key)
        return self._measured(found, self.pair.label(question.scope), *_RUN, CAPTURE)

    @_answer.register
    def _tensor(self, question: OfTensor) -> Measured:
        return self._measured(self.pair.figure_of_tensor(question.name, question.key), "all elements", *SIDES)

    @_answer.register
    def _config(self, question: OfConfig) -> Measured:
        found = self.pair.setting(question.side, question.name)
        if found.value is None and not found.why:
            found = Reading(None, f"the model of {'AB'[question.side]} has none")
        return self._measured(found, "", SIDES[question.side])

    @_answer.register
    def _bisection(self, question: OfBisection) -> Measured:
        if self._found is None:
            self._found = self._bisect()
        record, line = self._found
        why = "the bisection found none" if record.get("culprit") is None else "the bisection does not say"
        found = at(record, question.key, why)
        if question.key == "verdict" and found.value in NO_ANSWERS:
            notes = record.get("notes") or [""]
            found = Reading(None, f"the pair is {found.value}: {notes[0]}")
        return self._measured(found, self.pair.label(ALL), *_RUN, line_key(line))

    @_answer.register
    def _lab(self, question: OfLab) -> Measured:
        from workbench.lab.experiments import experiment

        made = experiment(question.name)
        on_pair = made.on == "model" or question.layer is not None or question.stage is not None
        named = f"{made.id} {sorted(question.settings.items())} {question.layer} {question.stage}"
        if named not in self._experiments:
            self._experiments[named] = self._performed(question, on_pair)
        record = self._experiments[named]
        if isinstance(record, str):
            return Measured(None, record)
        population = f"the pair, {self.pair.label(ALL)}" if on_pair else "its published input"
        found = at(record, question.key, f"lab {made.id} gives no {printable(question.key, 40)} here")
        return self._measured(found, population, *(_RUN if on_pair else ()))

    def _performed(self, question: OfLab, on_pair: bool) -> dict[str, Any] | str:
        from workbench.lab.experiment import perform
        from workbench.lab.experiments import experiment
        from workbench.lab.subject import open_subject

        made = experiment(question.name)
        try:
            if not on_pair:
                return perform(made, question.settings).to_json()
            spec = self.session.spec
            paths = Path(spec.a.path), Path(spec.b.path)
            asked = spec.a.numeric_path or None, spec.b.numeric_path or None
            made.settings(question.settings, "model")
            subject = open_subject(paths, asked, spec.tokens or None, None, question.layer, question.stage)
            found = perform(made, question.settings, subject).to_json()
            subject.pair.require_unchanged()
            return found
        except WorkbenchError as error:
            return str(error)

    @_answer.register
    def _rule(self, question: OfRule) -> Measured:
        contract, rule = self._found_rule(question)
        if rule.runs and (why := self._no_capture()):
            return Measured(None, why)
        result = check(Contract(contract.name, (rule,), contract.file), self.pair).results[0]
        found = at(result.to_json(), question.key, result.note or "the rule does not say")
        if question.key == "verdict" and result.verdict not in ("met", "broken"):
            found = Reading(None, f"the rule is {result.verdict}: {result.note}")
        used = (*_RUN, CAPTURE) if rule.runs else SIDES
        return self._measured(
            found, f"{result.compared} of {result.expected} compared", *used, contract_key(contract.name)
        )

    def _found_rule(self, question: OfRule) -> tuple[Contract, Rule]:
        """The rule asked for; without the name of a contract, that of the only one that has it."""
        names = [question.contract] if question.contract is not None else [_OWN_CONTRACT, *reading.SHIPPED]
        found = [
            (contract, rule)
            for name in names
            if (contract := self._contract(name, question.contract is not None)) is not None
            for rule in contract.rules
            if rule.id == question.id
        ]
        shown = printable(question.id, 60)
        if not found:
            raise WorkbenchError(f"no contract of {', '.join(printable(n, 60) for n in names)} has a rule {shown}")
        if len(found) > 1:
            ways = " or ".join(f"{contract.name}/{shown}" for contract, _ in found)
            raise WorkbenchError(f"more than one contract has a rule {shown}; say {ways}")
        return found[0]

    def _contract(self, name: str, needed: bool) -> Contract | None:
        file = contract_file(self.session, name)
        try:
            text = read_bounded(file, MAX_CONTRACT).decode()
        except (OSError, ValueError) as error:
            if not needed:
                return None
            why = getattr(error, "strerror", None) or "it is not UTF-8 text"
            raise WorkbenchError(f"the contract {printable(name, 60)} cannot be read ({why})") from None
        contract = reading.parse(text, printable(file.name))
        return Contract(name, contract.rules, file)

    def _no_capture(self) -> str:
        """Why the session's capture may not be used; "" if it may, or is still to be made."""
        why = retracted_capture(self.session)
        kept = KEPT_CELLS if self.session.spec.statistics_only else " and ".join(STORES.values())
        return f"{why}; remove {kept} from the session, and open it to capture anew" if why else ""
