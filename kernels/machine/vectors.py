"""Emitting LLVM vector instructions from an intrinsic: a thin layer over llvmlite's builder.

Used where plain loops do not become the vector code that they could be. Everything here is plain LLVM and runs on any
processor; the instructions that only some have are in byte_products.py.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from kernels.machine import target
from kernels.machine.memory import LINE

I8, I16, I32 = ir.IntType(8), ir.IntType(16), ir.IntType(32)
HALF, F32, F64 = ir.HalfType(), ir.FloatType(), ir.DoubleType()


_SHUFFLES = {16: "llvm.x86.ssse3.pshuf.b.128", 32: "llvm.x86.avx2.pshuf.b"}  # by lanes


class Vectors:
    """Vector operations on LLVM values; `b` is the IR builder."""

    def __init__(self, builder: Any) -> None:  # noqa: ANN401
        self.b = builder

    def constant(self, element: Any, lanes: int, value: float) -> Any:  # noqa: ANN401
        """A vector with the same value in every lane."""
        return ir.Constant(ir.VectorType(element, lanes), [value] * lanes)

    def load(self, element: Any, lanes: int, base: Any, index: Any) -> Any:  # noqa: ANN401
        """`lanes` neighbouring elements, from element number `index` of an array; any alignment."""
        address = self.b.bitcast(self.b.gep(base, [index]), ir.VectorType(element, lanes).as_pointer())
        return self.b.load(address, align=1)

    def store(self, value: Any, base: Any, index: Any) -> None:  # noqa: ANN401
        """Write neighbouring elements, from element number `index` of an array; any alignment."""
        self.b.store(value, self.b.bitcast(self.b.gep(base, [index]), value.type.as_pointer()), align=1)

    def splat(self, value: Any, lanes: int) -> Any:  # noqa: ANN401
        """One value in every lane."""
        undefined = ir.Constant(ir.VectorType(value.type, lanes), ir.Undefined)
        one = self.b.insert_element(undefined, value, ir.Constant(I32, 0))
        return self.pick(one, undefined, [0] * lanes)

    def alone(self, value: Any) -> Any:  # noqa: ANN401
        """One value as a vector of one lane."""
        return self.b.bitcast(value, ir.VectorType(value.type, 1))

    def first(self, v: Any) -> Any:  # noqa: ANN401
        """The first lane."""
        return self.b.extract_element(v, ir.Constant(I32, 0))

    def pick(self, first: Any, second: Any, lanes: list[int]) -> Any:  # noqa: ANN401
        """The lanes with these numbers of two vectors laid end to end."""
        return self.b.shuffle_vector(first, second, ir.Constant(ir.VectorType(I32, len(lanes)), lanes))

    def joined(self, first: Any, second: Any) -> Any:  # noqa: ANN401
        """Two vectors end to end."""
        return self.pick(first, second, list(range(2 * first.type.count)))

    def call(self, name: str, result: Any, *args: Any) -> Any:  # noqa: ANN401
        """An LLVM intrinsic function."""
        signature = ir.FunctionType(result, [arg.type for arg in args])
        return self.b.call(cgutils.get_or_insert_function(self.b.module, signature, name), args)

    def shifted(self, v: Any, bits: int) -> Any:  # noqa: ANN401
        """Every lane shifted right without sign, or left if `bits` is negative."""
        amount = self.constant(v.type.element, v.type.count, abs(bits))
        return v if bits == 0 else self.b.lshr(v, amount) if bits > 0 else self.b.shl(v, amount)

    def masked(self, v: Any, mask: int) -> Any:  # noqa: ANN401
        """The bits of `mask` in every lane."""
        return self.b.and_(v, self.constant(v.type.element, v.type.count, mask))

    def pairs(self, v: Any) -> Any:  # noqa: ANN401
        """Sums of two neighbouring integer lanes."""
        count = v.type.count
        return self.b.add(self.pick(v, v, list(range(0, count, 2))), self.pick(v, v, list(range(1, count, 2))))

    def signed(self, v: Any, element: Any) -> Any:  # noqa: ANN401
        """Integer lanes widened with their sign."""
        return self.b.sext(v, ir.VectorType(element, v.type.count))

    def repeated(self, v: Any, times: int) -> Any:  # noqa: ANN401
        """The same vector `times` times end to end."""
        return self.pick(v, v, list(range(v.type.count)) * times)

    def looked_up(self, table: tuple[int, ...], places: Any) -> Any:  # noqa: ANN401
        """The int8 numbers at these places (int8 lanes, 0 to 15) of a table of 16."""
        count = places.type.count
        if count in _SHUFFLES and target.has("avx2"):
            numbers = ir.Constant(places.type, list(table) * (count // 16))
            return self.call(_SHUFFLES[count], places.type, numbers, places)
        found = self.constant(I8, count, table[0])
        for place, number in enumerate(table):
            here = self.b.icmp_unsigned("==", places, self.constant(I8, count, place))
            found = self.b.select(here, self.constant(I8, count, number), found)
        return found

    def table(self, name: str, element: Any, numbers: list[int]) -> Any:  # noqa: ANN401
        """A pointer to constants that the compiled code brings with it, once for all that ask for the same."""
        kind, name = ir.ArrayType(element, len(numbers)), f"table.{name}"
        module = self.b.module
        if name in module.globals:
            return module.globals[name]
        made = ir.GlobalVariable(module, kind, name)
        made.linkage, made.global_constant = "internal", True
        made.initializer = ir.Constant(kind, numbers)
        return made

    def as_lanes(self, v: Any, element: Any, width: int = 0) -> Any:  # noqa: ANN401
        """The same bits in lanes of another type; `width` in bits, which integer types know themselves."""
        count = v.type.count * v.type.element.width // (width or element.width)
        return self.b.bitcast(v, ir.VectorType(element, count))

    def fma(self, a: Any, b: Any, c: Any) -> Any:  # noqa: ANN401
        """a*b + c in every float lane, rounded once."""
        bits = 32 if c.type.element == F32 else 64
        return self.call(f"llvm.fma.v{c.type.count}f{bits}", c.type, a, b, c)

    def from_half(self, bits: Any) -> Any:  # noqa: ANN401
        """int16 lanes, the bits of IEEE halves, as float32 lanes; NaN becomes quiet."""
        b, count = self.b, bits.type.count
        wide, floats = ir.VectorType(I32, count), ir.VectorType(F32, count)
        if target.HALF_PRECISION:
            return b.fpext(b.bitcast(bits, ir.VectorType(HALF, count)), floats)
        stored = b.zext(bits, wide)
        sign, rest = self.shifted(self.masked(stored, 0x8000), -16), self.shifted(self.masked(stored, 0x7FFF), -13)
        # the exponent is off by 112; a product with 2^112 sets that right, and is exact for denormal halves as well
        scaled = b.fmul(b.bitcast(rest, floats), self.constant(F32, count, 2.0**112))
        nan = b.icmp_unsigned(">", rest, self.constant(I32, count, 0x0F800000))
        special = b.or_(
            rest, b.select(nan, self.constant(I32, count, 0x7FC00000), self.constant(I32, count, 0x7F800000))
        )
        finite = b.icmp_unsigned("<", rest, self.constant(I32, count, 0x0F800000))
        return b.bitcast(b.or_(sign, b.select(finite, b.bitcast(scaled, wide), special)), floats)

    def to_half(self, values: Any) -> Any:  # noqa: ANN401
        """float32 lanes as the bits of the nearest IEEE halves, int16 lanes; ties to even, NaN becomes quiet."""
        b, count = self.b, values.type.count
        short, wide, floats = (ir.VectorType(element, count) for element in (I16, I32, F32))
        if target.HALF_PRECISION:
            return b.bitcast(b.fptrunc(values, ir.VectorType(HALF, count)), short)

        def many(value: int) -> Any:  # noqa: ANN401
            return self.constant(I32, count, value)

        stored = b.bitcast(values, wide)
        sign, size = self.shifted(self.masked(stored, -0x80000000), 16), self.masked(stored, 0x7FFFFFFF)
        odd = self.masked(self.shifted(size, 13), 1)
        normal = self.shifted(b.add(b.add(size, odd), many(0x0FFF - (112 << 23))), 13)
        # beside 0.5 the last place of a float is 2^-24, that of denormal halves
        denormal = b.fadd(b.bitcast(size, floats), self.constant(F32, count, 0.5))
        denormal = b.sub(b.bitcast(denormal, wide), many(0x3F000000))
        quiet = b.or_(self.masked(self.shifted(size, 13), 0x3FF), many(0x7E00))
        infinite = b.select(b.icmp_unsigned(">", size, many(0x7F800000)), quiet, many(0x7C00))
        half = b.select(b.icmp_unsigned("<", size, many(0x38800000)), denormal, normal)
        half = b.select(b.icmp_unsigned(">=", size, many(0x47800000)), infinite, half)
        return b.trunc(b.or_(sign, half), short)

    def to_float(self, lanes: Any) -> Any:  # noqa: ANN401
        """int32 lanes as the nearest float32."""
        return self.b.sitofp(lanes, ir.VectorType(F32, lanes.type.count))

    def ask(self, array: Any, at: Any) -> None:  # noqa: ANN401
        """Ask for the cache line of a byte that will be wanted soon; it need not be there."""
        place = self.b.bitcast(self.b.gep(array, [at]), I8.as_pointer())
        how = [I32(0), I32(2), I32(1)]  # to read, into the cache of the core, data
        self.call("llvm.prefetch.p0", ir.VoidType(), place, *how)

    def total(self, v: Any) -> Any:  # noqa: ANN401
        """Sum of float lanes: upper half onto lower half until one is left (ggml's `hsum_float_8`)."""
        while v.type.count > 2:
            half = v.type.count // 2
            v = self.b.fadd(self.pick(v, v, list(range(half, 2 * half))), self.pick(v, v, list(range(half))))
        first, second = (self.b.extract_element(v, ir.Constant(I32, i)) for i in (0, 1))
        return self.b.fadd(first, second)


def array_intrinsic(parameters: int, result: Any, emit: Callable[..., Any]) -> Callable[..., Any]:  # noqa: ANN401
    """A function for kernels whose `parameters` arguments are arrays or integers and whose body is emitted IR.

    emit(builder, values) gets a data pointer per array and the value per integer, and returns the result (an LLVM
    value), or None where `result` is none. Nothing checks bounds.
    """

    def typing(_context: Any, *args: Any) -> Any:  # noqa: ANN401
        """Return the signature for these argument types and what emits the body, as Numba wants it."""

        def body(context: Any, builder: Any, signature: Any, values: Any) -> Any:  # noqa: ANN401
            ready = [
                context.make_array(kind)(context, builder, value).data if isinstance(kind, types.Array) else value
                for kind, value in zip(signature.args, values, strict=True)
            ]
            made = emit(builder, *ready)
            return context.get_dummy_value() if made is None else made

        return result(*args), body

    names = ", ".join(f"a{i}" for i in range(parameters))
    scope = {"typing": typing}
    exec(f"def function(context, {names}): return typing(context, {names})", scope)  # noqa: S102 - Numba counts parameters
    compiled: Callable[..., Any] = intrinsic(scope["function"])
    return compiled


def _emit_prefetch(b: Any, array: Any, start: Any, size: Any) -> None:  # noqa: ANN401
    v = Vectors(b)
    with cgutils.for_range(b, b.udiv(b.add(size, size.type(LINE - 1)), size.type(LINE))) as loop:
        v.ask(array, b.add(start, b.mul(loop.index, size.type(LINE))))


# A kernel function of (bytes, start, size): asks for bytes that will be wanted soon; they need not be there.
prefetch = array_intrinsic(3, types.void, _emit_prefetch)
