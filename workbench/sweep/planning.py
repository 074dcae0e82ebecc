"""What a sweep will do, before it does anything: every part on every prompt, what that costs, holds and writes."""

import signal
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

from kernels.errors import WorkbenchError
from workbench.sweep.parts import By, Part, parts
from workbench.sweep.question import Prompt, Question, opened
from workbench.sweep.results import Line

_HEAD_BYTES, _LINE_BYTES = 900, 700  # of a line: of a prompt without its tokens, and of a part


class Work(NamedTuple):
    """What is left to do on a prompt."""

    number: int
    prompt: Prompt
    parts: list[Part]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a sweep does: every part on every prompt. vocabulary, hidden, layers : of the models, for what they hold."""

    question: Question
    by: By
    prompts: Sequence[Prompt]
    parts: Sequence[Part]
    vocabulary: int
    hidden: int
    layers: int

    @property
    def units(self) -> int:
        """Units of work, one line each."""
        return len(self.prompts) * len(self.parts)

    def cost(self, prompt: Prompt, part: Part) -> float:
        """Of a unit, in forwards of a token."""
        return len(prompt.tokens) * part.cost

    @property
    def total(self) -> float:
        """The cost of all units, at the most: what is alike on both sides costs nothing."""
        return sum(len(prompt.tokens) for prompt in self.prompts) * sum(part.cost for part in self.parts)

    @property
    def held(self) -> int:
        """Bytes that a worker holds beside the mapped files: A's run on two prompts, and the logits of one more."""
        longest = max(len(prompt.tokens) for prompt in self.prompts)
        return 2 * self._run(longest) + 12 * longest * self.vocabulary

    @property
    def kept(self) -> int:
        """Bytes of A's runs on all prompts, as they stay on the disk if there is room."""
        return sum(self._run(len(prompt.tokens)) for prompt in self.prompts)

    def _run(self, tokens: int) -> int:
        return 4 * tokens * (self.vocabulary + (self.layers + 1) * self.hidden)

    @property
    def written(self) -> int:
        """Bytes of the file of results, about."""
        tokens = sum(len(prompt.tokens) for prompt in self.prompts)
        bins = sum(min(len(prompt.tokens), 60) for prompt in self.prompts) * 9 * len(self.parts)
        return len(self.prompts) * _HEAD_BYTES + 7 * tokens + (self.units - len(self.prompts)) * _LINE_BYTES + bins

    def line(self, work: Work, part: Part, figures: dict[str, Any]) -> Line:
        """A line of results."""
        line: Line = {"unit": part.name | {"prompt": work.number}, **figures}
        if part.stored:
            line["stored"] = part.stored
        if not part.name:
            a, b = (asdict(side) for side in (self.question.a, self.question.b))
            floor = {"a": a, "b": b, "floor_path": self.question.floor_path, "by": self.by}
            of = {"units": len(self.parts), "prompts": len(self.prompts)}
            line |= {"ids": list(work.prompt.tokens), "text": work.prompt.text} | floor | of
        return line | {"pair": self.question.identity(work.prompt.tokens)}


def plan(question: Question, by: By, file: Path, of_ids: bool) -> Plan:
    """Plan to exchange every part on the prompts of a file, of token ids or of texts.

    WorkbenchError for two models that are no copies of one, and for a prompt that they cannot run.
    """
    from workbench.sweep.prompts import ids_of_lines, texts_of_lines

    pair = opened(question)
    prompts = ids_of_lines(file, pair) if of_ids else texts_of_lines(file, pair)
    config = pair.a.config
    sizes = config.vocab_size, config.hidden_size, config.num_hidden_layers
    return Plan(question, by, prompts, parts(pair, by), *sizes)


def planned(question: Question, by: By, file: Path, of_ids: bool) -> Plan:
    """The same, made in a process that ends then: tokenizers and what kernels need take more memory than a sweep."""
    with ProcessPoolExecutor(1, get_context("spawn"), signal.signal, (signal.SIGINT, signal.SIG_IGN)) as process:
        try:
            return process.submit(plan, question, by, file, of_ids).result()
        except BrokenProcessPool:
            raise WorkbenchError("the process that reads both models has died, as happens for want of memory") from None
