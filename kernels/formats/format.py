"""What there is to know about a weight format: its place in ggml and APR, its bytes, its arithmetic, its rounding.

A layout is written once, as functions of a `Stored` block, in operations that arrays of bytes and lanes of LLVM vectors
both have. So the kernels (kernels/rows/unpack.py) and whoever looks into a block (kernels/rows/fields.py) read the same
description, and a format needs neither NumPy nor a compiler.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, Protocol, Self, TypeVar

from kernels.formats.grids import Grid
from kernels.formats.numbers import NUMBERS


class Block(NamedTuple):
    """How many elements a block holds, and how many bytes it takes."""

    elements: int
    bytes: int


class Lanes(Protocol):
    """Small integers side by side: 8 bits each, unsigned but for those that `Stored` says are signed."""

    def __and__(self, mask: int, /) -> Self: ...

    def __or__(self, other: Self, /) -> Self: ...

    def __xor__(self, other: Self, /) -> Self: ...

    def __lshift__(self, bits: int, /) -> Self: ...

    def __rshift__(self, bits: int, /) -> Self: ...


L = TypeVar("L", bound=Lanes)


class Stored(Protocol[L]):
    """The bytes of one block, or of many blocks at once."""

    def bytes(self, at: int, count: int) -> L:
        """`count` bytes from byte `at` on."""

    def signed(self, at: int, count: int) -> L:
        """The same as int8."""

    def bits(self, at: int, count: int) -> L:
        """`count` bits from byte `at` on, the lowest of every byte first: 0 or 1 each."""

    def joined(self, *lanes: L) -> L:
        """Lanes end to end; a power of two of them, with as many lanes each."""

    def zipped(self, *lanes: L) -> L:
        """The first of all lanes, then the second ones ...; a power of two of them, with as many lanes each."""

    def repeated(self, number: int, count: int) -> L:
        """The same number in `count` lanes."""

    def ternary(self, lanes: L, place: int) -> L:
        """The digit at a place, 0 to 4, of the lanes over 256 in base 3: the upper byte of 3^(place + 1) times them."""

    def less(self, lanes: L, number: int) -> L:
        """The lanes less a number, signed."""

    def looked_up(self, table: tuple[int, ...], lanes: L) -> L:
        """The signed numbers at these places of a table of 16."""

    def parts(self, at: int, firsts: tuple[int, ...], width: int) -> L:
        """Of the 32-bit word at byte `at` the `width` bits, at most 8, from each of these bits on."""

    def spread(self, lanes: L) -> L:
        """The bits of all lanes, the lowest of every lane first: 0 or 1 each."""

    def points(self, grid: Grid, low: L, high: L | None = None) -> L:
        """The signed coordinates of points of a grid, whose numbers are low + 256 * high."""

    def negated(self, lanes: L, flags: L) -> L:
        """The lanes, signed, and with the other sign where a flag is 1."""


class Field(Protocol):
    """Where in a block some integers are."""

    def __call__(self, block: Stored[L], /) -> L: ...


class Codes(Protocol):
    """Where the codes of the elements are, in order and some at a time."""

    def __call__(self, block: Stored[L], /) -> Iterator[L]: ...


class Dot(NamedTuple):
    """The order in which a row is multiplied with 8-bit activations (kernels/matmul/packed_dot.py).

    scales : integer scales in a group of 32 elements; 0 says that a group is a block. mins : what is taken off:
    "none"; "first": from the sums of products, before those of the block are added; "lanes": four float sums; "one":
    one float sum; "offset": integers, before anything is rounded; "eights": eight float sums, of 8 elements that share
    a min. "block" adds one float sum, of what every block has beside its scale times what its activations have beside
    theirs. signed : whether the codes of groups are multiplied with their signs. block : elements of a block. turns :
    sums that blocks take turns at. within : of blocks that are multiplied with several of activations: "halves": each
    16 elements have a scale of the row; "lanes": products with the scales of activations are summed over a block, in
    lanes, before its own scale comes to it; "one": the same after the lanes were added. whole : elements whose products
    are added up before anything is rounded, so that a row has one float sum; 0 where each of eight lanes has its own.
    joint : of such sums, what is taken off is so in every block, and has no float sum of its own. plain : all scales
    are 1.
    """

    scales: int
    mins: str
    signed: bool = False
    block: int = 32
    turns: int = 1
    within: str = ""
    whole: int = 0
    joint: bool = False
    plain: bool = False


_FLOATS = ((1, 4), (1, 5), (2, 5), (2, 8), (4, 8), (8, 11))  # bytes, and bits of the exponent
EIGHT_UNIT = 2.0**-10  # the step between the smallest scales of 8 bits
SHIFT = 0.125  # of codes (ggml-common.h, `IQ1S_DELTA`)
ONE_SCALE = Dot(scales=0, mins="none")
TWO_TURNS = Dot(scales=0, mins="none", turns=2)
SCALE_AND_LEAST = Dot(scales=0, mins="block")
MINS_FIRST = Dot(block=256, scales=2, mins="first")
MINS_IN_LANES = Dot(block=256, scales=1, mins="lanes")
MINS_IN_ONE = Dot(block=256, scales=1, mins="one")
SHARED_ZERO = Dot(block=256, scales=2, mins="offset")
PLAIN_SHARED_ZERO = Dot(block=256, scales=2, mins="offset", plain=True)
SIGNED_32 = Dot(block=256, scales=1, mins="none", signed=True)
SIGNED_16 = Dot(block=256, scales=2, mins="none", signed=True)
SIGNED_AND_ONE = Dot(block=256, scales=1, mins="one", signed=True)
SCALED_HALVES = Dot(block=64, scales=0, mins="none", within="halves")
SUMMED_LANES = Dot(block=128, scales=0, mins="none", within="lanes")
SUMMED_TOTALS = Dot(block=64, scales=0, mins="none", within="one")
SIGNED_AND_EIGHTS = Dot(block=256, scales=2, mins="eights", signed=True)


@dataclass(frozen=True, kw_only=True, eq=False)
class Format:
    """Any weight format.

    name : as ggml has it (ggml.h, `enum ggml_type`); of types that it has not, the name of SafeTensors.
    apr_codes : dtype codes that writers of APR files have given it besides its number in ggml. What else the code may
    mean is told by the size. in_apr : whether its number is a code of APR itself.
    """

    name: str
    block: Block
    apr_codes: tuple[int, ...] = ()
    in_apr: bool = False

    @property
    def number(self) -> int:
        """Its number in ggml, or one that no type of ggml has."""
        return NUMBERS[self.name]


@dataclass(frozen=True, kw_only=True, eq=False)
class FloatFormat(Format):
    """Single floats with a sign, an exponent and `mantissa` bits; the engine rounds activations to half precision ones.

    saturates : the largest exponent is one of numbers too, without infinity; NaN is where all bits are 1.
    """

    mantissa: int
    saturates: bool = False

    def __post_init__(self) -> None:
        if self.block.elements != 1 or (self.block.bytes, self.exponent) not in _FLOATS:
            raise ValueError(f"{self.name} is a float of {self.block.bytes} bytes that nothing here reads")

    @property
    def exponent(self) -> int:
        """Bits of the exponent: 8 as in float32, or 5 as in half precision."""
        return 8 * self.block.bytes - 1 - self.mantissa

    @property
    def infinity(self) -> int:
        """The bits of infinity, which a type that saturates has not."""
        return ((1 << self.exponent) - 1) << self.mantissa

    @property
    def smallest(self) -> float:
        """The step between denormal numbers."""
        return float(2.0 ** (2 - (1 << self.exponent >> 1) - self.mantissa))


@dataclass(frozen=True, kw_only=True, eq=False)
class BlockFormat(Format):
    """Integer codes with half-precision factors for every block, and integer scales for its groups where there are any.

    Value i of a block is `d * scale * (code - zero) - dmin * min`, scale and min being those of its group; without
    groups, `d * (code - zero) + least`.

    d, dmin, least : byte offsets of the half-precision numbers. d_as : how d is kept instead: "E8M0", one byte, the
    exponent of a power of two; "nibbles", the highest four bits of four 16-bit words; "UE4M3": not at all, but an
    unsigned float of 8 bits is the scale of each group. unit : what d is multiplied with.
    groups : number of groups; 0 for none. scales, mins : of the groups. codes : of the elements in order, as stored, or
    what they stand for by the table `levels` or as points of a grid. zero : the code that stands for 0. top : the
    largest. shifts : flags of neighbours whose codes are moved by SHIFT, upward, or downward where the flag is 1.
    wide : whether it packs codes or scales into integers of several bytes, which big-endian machines store otherwise.

    activations, apr_activations : the rule by which activations become 8-bit codes (kernels/matmul/activations.py) on
    path `ggml`, and on `apr`, where None stands for floats. dot : how both are multiplied. tiled : whether ggml
    multiplies eight tokens and more in tiles. repacked : elements that it adds up first, for four tokens at a time,
    where it rearranges weights in memory; 0 where it does not. repacked_by : the vector instructions which that takes.

    What ggml's quantizers do (workbench/bisect/weights/steps.py). cut : whether sources may lie beyond the ends of the
    range of codes. fitted : whether the scale (and least) may be stored as others than the codes were rounded with.
    late : whether d and least are rounded to half precision only after the codes are made. largest_scale : of a group.
    lost : codes that a group may span whose scale was rounded to 0. scale_of : which magnitude of its block a scale is
    that nothing fits: "largest", "mean", or "" for neither. even : whether one of eight signs is not stored but makes
    the number of negative ones even.
    """

    codes: Codes
    top: int
    zero: int = 0
    levels: tuple[int, ...] = ()
    grid: Grid | None = None
    d: int = 0
    d_as: str = "half"
    unit: float = 1.0
    dmin: int | None = None
    least: int | None = None
    groups: int = 0
    scales: Field | None = None
    mins: Field | None = None
    shifts: Field | None = None
    wide: bool = False
    activations: str
    apr_activations: str | None = None
    dot: Dot
    tiled: bool = False
    repacked: int = 0
    repacked_by: str = "AVX2"
    cut: bool = True
    fitted: bool = False
    late: bool = False
    largest_scale: int = 0
    lost: int = 0
    scale_of: str = ""
    even: bool = False

    def __post_init__(self) -> None:
        if self.block.elements != self.dot.block:
            raise ValueError(f"{self.name} has blocks of {self.block.elements}, which no product here is made for")

    @property
    def tiles(self) -> Dot:
        """How tiles are multiplied."""
        mins = "lanes" if self.dot.mins == "one" and not self.dot.signed else self.dot.mins  # which is all the same
        return self.dot._replace(mins=mins, whole=self.block.elements, joint=True)

    @property
    def rearranged(self) -> Dot:
        """How rearranged weights are multiplied."""
        return self.dot._replace(whole=self.repacked, turns=1)

    @property
    def rearranged_alone(self) -> Dot:
        """The same of tokens that are not taken four at a time."""
        return self.rearranged._replace(whole=self.block.elements)

    @property
    def shifted(self) -> int:
        """Elements that share a shift."""
        return 8 if self.dot.mins == "eights" else self.group

    @property
    def group(self) -> int:
        """Elements that share a scale."""
        return self.block.elements // max(1, self.groups)

    @property
    def ends(self) -> tuple[int, int]:
        """The least and the largest number that stands for an element, its zero taken off."""
        if self.grid is not None:
            return -self.top, self.top
        return (min(self.levels), max(self.levels)) if self.levels else (-self.zero, self.top - self.zero)

    @property
    def gap(self) -> int:
        """The largest distance between two neighbours of these numbers."""
        levels = sorted(set(self.levels)) or [0, 1]
        return max(high - low for low, high in pairwise(levels))

    @property
    def factors(self) -> tuple[int, ...]:
        """Byte offsets of all half-precision numbers."""
        d = self.d if self.d_as == "half" else None
        return tuple(at for at in (d, self.dmin, self.least) if at is not None)
