"""Multiplying 8-bit lanes: the instructions that a processor may have for it, and plain LLVM where it has none.

Integer sums are exact, so all ways give the same bits. HOST is the fastest one that the
processor has for which kernels are compiled.
"""

from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir

from kernels.machine import target
from kernels.machine.vectors import I8, I16, I32, Vectors


class Portable:
    """Any processor.

    tokens : that one vector holds: it has 16 bytes of each.
    flip : bits (of an int8) that are inverted in the activation codes that `signed` gets.
    """

    name = "portable"
    tokens = 2
    flip = 0

    def pairs(self, v: Vectors, codes: Any, x: Any) -> Any:  # noqa: ANN401
        """int16 sums of two neighbouring products; codes uint8 < 128, x int8."""
        return v.pairs(v.b.mul(v.signed(codes, I16), v.signed(x, I16)))

    def words(self, v: Vectors, start: Any, a: Any, b: Any) -> Any:  # noqa: ANN401
        """int32 sums of two neighbouring int16 * int16 products, added to `start`."""
        return v.b.add(start, v.pairs(v.b.mul(v.signed(a, I32), v.signed(b, I32))))

    def fours(self, v: Vectors, start: Any, codes: Any, x: Any) -> Any:  # noqa: ANN401
        """int32 sums of four neighbouring products, added to `start`; codes uint8 < 128, x int8."""
        return self.words(v, start, self.pairs(v, codes, x), v.constant(I16, x.type.count // 2, 1))

    def signed(self, v: Vectors, codes: Any, x: Any, corrections: Any) -> Any:  # noqa: ANN401, ARG002
        """int32 sums of four neighbouring products; codes int8, x int8 of at most 127, stored with `flip`."""
        return v.pairs(v.signed(self.pairs(v, codes, x), I32))

    def correction(self, v: Vectors, codes: Any) -> Any:  # noqa: ANN401
        """What `signed` wants to know of the codes: int32, one lane for four of them."""
        return v.constant(I32, codes.type.count // 4, 0)


class Avx2(Portable):
    """vpmaddubsw adds two products, one side unsigned; it would saturate beyond int16."""

    name = "AVX2"

    def pairs(self, v: Vectors, codes: Any, x: Any) -> Any:  # noqa: ANN401
        return v.call("llvm.x86.avx2.pmadd.ub.sw", ir.VectorType(I16, 16), codes, x)

    def words(self, v: Vectors, start: Any, a: Any, b: Any) -> Any:  # noqa: ANN401
        return v.b.add(start, v.call("llvm.x86.avx2.pmadd.wd", ir.VectorType(I32, 8), a, b))

    def signed(self, v: Vectors, codes: Any, x: Any, corrections: Any) -> Any:  # noqa: ANN401, ARG002
        """|code| * (x with the code's sign)."""
        size, turned = (v.call("llvm.x86.avx2.psign.b", codes.type, value, codes) for value in (codes, x))
        return self.words(v, v.constant(I32, 8, 0), self.pairs(v, size, turned), v.constant(I16, 16, 1))


class Avx512Vnni(Portable):
    """Twice the width, and instructions that multiply and add at once: vpdpwssd, and vpdpbusd with one side unsigned.

    Activations are made unsigned by adding 128 (inverting the sign bit), and the sum starts at -128 * (sum of codes).
    """

    name = "AVX-512 VNNI"
    tokens = 4
    flip = -128

    def pairs(self, v: Vectors, codes: Any, x: Any) -> Any:  # noqa: ANN401
        return v.call("llvm.x86.avx512.pmaddubs.w.512", ir.VectorType(I16, 32), codes, x)

    def fours(self, v: Vectors, start: Any, codes: Any, x: Any) -> Any:  # noqa: ANN401
        return self._bytes(v, start, codes, x)

    def signed(self, v: Vectors, codes: Any, x: Any, corrections: Any) -> Any:  # noqa: ANN401
        return self._bytes(v, corrections, x, codes)

    def correction(self, v: Vectors, codes: Any) -> Any:  # noqa: ANN401
        sums = self._bytes(v, v.constant(I32, 16, 0), v.constant(I8, 64, -128), codes)
        return v.b.neg(sums)

    def words(self, v: Vectors, start: Any, a: Any, b: Any) -> Any:  # noqa: ANN401
        # as assembly, because LLVM would split the instruction into two where it thinks that the chain of sums is long
        words = [v.as_lanes(value, I32) for value in (a, b)]
        signature = ir.FunctionType(start.type, [start.type] * 3)
        return v.b.asm(signature, "vpdpwssd $2, $1, $0", "=v,v,v,0", [*words, start], side_effect=False)

    def _bytes(self, v: Vectors, start: Any, unsigned: Any, signed: Any) -> Any:  # noqa: ANN401
        words = [v.as_lanes(value, I32) for value in (unsigned, signed)]
        return v.call("llvm.x86.avx512.vpdpbusd.512", start.type, start, *words)


def available() -> list[Portable]:
    """What that processor can do, fastest last."""
    found = [Portable()]
    if target.has("avx2"):
        found.append(Avx2())
    if target.has("avx512bw") and target.has("avx512vnni"):
        found.append(Avx512Vnni())
    return found


llvm.initialize_native_asmparser()  # for Avx512Vnni.words
HOST = available()[-1]
