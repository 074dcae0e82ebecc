"""Emitting LLVM vector instructions from an intrinsic: a thin layer over llvmlite's builder.

Used where plain loops do not become the instructions that a processor has for 8-bit work. Everything here but the
two packed multiplies is plain LLVM and runs on any processor.
"""

from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

HAS_AVX2 = bool(llvm.get_host_cpu_features().get("avx2", False))

I8, I16, I32, HALF, F32 = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.HalfType(), ir.FloatType()


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

    def pairs_u8_i8(self, codes: Any, x: Any) -> Any:  # noqa: ANN401
        """AVX2: 16 int16 sums of two neighbouring uint8 * int8 products; beyond int16 they would saturate."""
        return self.call("llvm.x86.avx2.pmadd.ub.sw", ir.VectorType(I16, 16), codes, x)

    def with_sign(self, v: Any, sign: Any) -> Any:  # noqa: ANN401
        """AVX2: int8 lanes negated where `sign` is negative, zero where it is zero."""
        return self.call("llvm.x86.avx2.psign.b", v.type, v, sign)

    def pairs_i16(self, a: Any, b: Any) -> Any:  # noqa: ANN401
        """AVX2/SSE2: int32 sums of two neighbouring int16 * int16 products, 8 of 16 lanes or 4 of 8."""
        wide = a.type.count == 16
        name = "llvm.x86.avx2.pmadd.wd" if wide else "llvm.x86.sse2.pmadd.wd"
        return self.call(name, ir.VectorType(I32, 8 if wide else 4), a, b)

    def fma(self, a: Any, b: Any, c: Any) -> Any:  # noqa: ANN401
        """a*b + c in every float lane, rounded once."""
        bits = 32 if c.type.element == F32 else 64
        return self.call(f"llvm.fma.v{c.type.count}f{bits}", c.type, a, b, c)

    def to_float(self, lanes: Any) -> Any:  # noqa: ANN401
        """int32 lanes as the nearest float32."""
        return self.b.sitofp(lanes, ir.VectorType(F32, lanes.type.count))

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
