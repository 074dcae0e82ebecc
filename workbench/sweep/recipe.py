"""Which tensors to keep as A has them so that a copy has a given size and costs least in the output."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from kernels.errors import WorkbenchError
from workbench.sweep.tally import Row, Tally

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "KI": 2**10, "MI": 2**20, "GI": 2**30}
_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,6})?)\s*([KMG]?I?)B?", re.ASCII | re.IGNORECASE)
_MOST_BITS = 64  # per weight; larger numbers are bytes


@dataclass(frozen=True, slots=True)
class Choice:
    """A stored tensor, which may be several that a forward knows. loss : what B's costs."""

    name: str
    elements: int
    type_a: str
    type_b: str
    bytes_a: int
    bytes_b: int
    loss: float

    @property
    def saved(self) -> int:
        """Bytes that B's type is smaller by."""
        return self.bytes_a - self.bytes_b


@dataclass(frozen=True, slots=True)
class Recipe:
    """Tensors as A and as B has them. size : bytes of the file. loss : of what is as in B, as if losses add up."""

    kept: tuple[Choice, ...]
    given: tuple[Choice, ...]
    size: int
    loss: float

    @property
    def bits(self) -> float:
        """Bits of a weight, of the tensors alone."""
        stored = sum(choice.bytes_a for choice in self.kept) + sum(choice.bytes_b for choice in self.given)
        return 8 * stored / sum(choice.elements for choice in (*self.kept, *self.given))

    def lines(self) -> Iterator[str]:
        """Options of llama-quantize, one for every tensor of blocks of weights."""
        types = {choice.name: choice.type_a for choice in self.kept}
        types |= {choice.name: choice.type_b for choice in self.given}
        for choice in sorted((*self.kept, *self.given), key=lambda choice: _place(choice.name)):
            if not {choice.type_a, choice.type_b} <= _NEVER_QUANTIZED:
                yield f"--tensor-type ^{choice.name}={types[choice.name].lower()}"

    def to_json(self) -> dict[str, Any]:
        """The recipe as JSON values."""
        return {
            "bytes": self.size,
            "bits_per_weight": self.bits,
            "loss": self.loss,
            "kept": [choice.name for choice in self.kept],
            "tensor_types": [line.removeprefix("--tensor-type ") for line in self.lines()],
        }


_NEVER_QUANTIZED = {"F32"}  # norms and biases: llama-quantize leaves them as they are


def _place(name: str) -> tuple[int, str]:
    layer = re.search(r"\.(\d+)\.", name)
    return (int(layer[1]) if layer else -1), name


def wanted(text: str) -> tuple[float, bool]:
    """A size as bytes, such as 400M or 3.2GiB, or as bits per weight, a number up to 64; and whether it is of bits."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise WorkbenchError(f"{text[:40]!r} is no size; give bytes, such as 400M, or bits per weight, such as 4.5")
    number = float(match[1])
    return (number, True) if not match[2] and number <= _MOST_BITS else (number * _UNITS[match[2].upper()], False)


def recipe(tally: Tally, size: str, metric: str) -> Recipe:
    """Choose for every tensor between A's type and B's, the loss that costs most per byte saved being avoided first.

    size : see `wanted`. metric : of METRICS; losses are taken to add up. WorkbenchError if it is smaller than B, or
    if units are missing.
    """
    number, of_bits = wanted(size)
    head = tally.require_some()
    choices = _choices(tally.rows.values(), metric)
    if tally.done < (tally.expected or 0):  # a tensor that is missing would be taken for one that has no choice
        raise WorkbenchError(
            f"a recipe is made of all {tally.expected} units, and {tally.done} are there; give A B, the prompts and "
            "--resume to do the rest"
        )
    beside = head["a"]["size"] - sum(choice.bytes_a for choice in choices)  # vocabulary and settings
    room = number * sum(choice.elements for choice in choices) / 8 if of_bits else number - beside
    smallest = sum(min(choice.bytes_a, choice.bytes_b) for choice in choices)
    if room < smallest:
        bits = 8 * smallest / sum(choice.elements for choice in choices)
        raise WorkbenchError(
            f"the smallest mixture of A and B has {smallest + beside} bytes ({bits:.3f} bits per weight); "
            "give a larger size, or sweep against a smaller copy"
        )
    kept = {choice for choice in choices if choice.saved <= 0}
    left = room - smallest
    dear = (choice for choice in choices if choice.saved > 0 and choice.loss > 0)
    for choice in sorted(dear, key=lambda choice: choice.loss / choice.saved, reverse=True):
        if choice.saved <= left:
            kept.add(choice)
            left -= choice.saved
    given = tuple(choice for choice in choices if choice not in kept)
    held = sum(choice.bytes_a for choice in kept) + sum(choice.bytes_b for choice in given)
    return Recipe(tuple(c for c in choices if c in kept), given, held + beside, sum(choice.loss for choice in given))


def _choices(rows: Iterable[Row], metric: str) -> list[Choice]:
    """The tensors of a sweep as files store them: the experts of a layer are one of GGUF's."""
    found: dict[str, list[Choice]] = {}
    for row in rows:
        stored = row.stored
        if stored is None:
            raise WorkbenchError("a recipe is made of tensors; sweep --by tensor")
        if stored["a"] is None or stored["b"] is None:
            raise WorkbenchError(f"{stored['name']} is on one side only; a recipe chooses between two types")
        a, b = stored["a"], stored["b"]
        choice = Choice(
            stored["name"], stored["elements"], a["type"], b["type"], a["bytes"], b["bytes"], row.figure(metric)
        )
        found.setdefault(choice.name, []).append(choice)
    if not found:
        raise WorkbenchError("a recipe is made of tensors; sweep --by tensor")
    return [_together(several) for several in found.values()]


def _together(several: list[Choice]) -> Choice:
    first = several[0]
    sums = {key: sum(getattr(choice, key) for choice in several) for key in ("elements", "bytes_a", "bytes_b", "loss")}
    return Choice(
        first.name, sums["elements"], first.type_a, first.type_b, sums["bytes_a"], sums["bytes_b"], sums["loss"]
    )
