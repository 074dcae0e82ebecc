"""Weight formats describe themselves, and what nothing here can read is an error instead of something like it."""

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kernels.formats import all_formats
from kernels.formats.format import Block, BlockFormat, Dot, FloatFormat
from kernels.matmul.activations import RULES
from kernels.matmul.ggml import DOTS
from kernels.rows.dequantize import dequantize_rows
from kernels.weight import TensorType

ROOT = Path(__file__).parents[2]
BLOCKS = [format for format in all_formats() if isinstance(format, BlockFormat)]
FLOATS = [format for format in all_formats() if isinstance(format, FloatFormat)]


def test_every_file_is_a_format():
    files = {path.stem for path in (ROOT / "kernels/formats").glob("*.py")} - {
        "__init__",
        "format",
        "grids",
        "numbers",
        "signs",
    }
    assert files == {format.name.lower() for format in all_formats()} == {type.name.lower() for type in TensorType}


@pytest.mark.parametrize("format", BLOCKS, ids=lambda format: format.name)
def test_arithmetic_that_formats_ask_for_is_there(format):
    assert format.activations in RULES
    assert format.apr_activations is None or format.apr_activations in RULES
    assert format.dot in DOTS


@pytest.mark.parametrize("size", [1, 16, 64, 128, 512])
def test_blocks_of_another_size_are_refused(size):
    for format in (format for format in BLOCKS if format.block.elements != size):
        with pytest.raises(ValueError, match=f"{format.name} has blocks of {size}, which no product here is made for"):
            replace(format, block=Block(size, format.block.bytes))


def test_blocks_of_32_cannot_be_multiplied_as_those_of_256():
    with pytest.raises(ValueError, match="Q8_0 has blocks of 32"):
        replace(BLOCKS[[format.name for format in BLOCKS].index("Q8_0")], dot=Dot(scales=1, mins="one", block=256))


@pytest.mark.parametrize(("size", "mantissa"), [(1, 4), (1, 1), (2, 9), (4, 10), (8, 50)])
def test_other_floats_are_refused(size, mantissa):
    with pytest.raises(ValueError, match=f"is a float of {size} bytes that nothing here reads"):
        replace(FLOATS[0], block=Block(1, size), mantissa=mantissa)


def test_floats_of_8_and_64_bits_become_their_float32():
    """Byte by byte as OCP OFP8 says: exponents from 2^-6 and 2^-14 on, the least one of denormal numbers."""
    every = np.arange(256, dtype=np.uint8)
    for name, bits, least, nan in (("F8_E4M3", 3, -6, 0x7F), ("F8_E5M2", 2, -14, 0x7D)):
        found = dequantize_rows(TensorType[name], every[None], 256)[0]
        for byte in range(256):
            exponent, mantissa = (byte & 0x7F) >> bits, byte & (1 << bits) - 1
            value = math.ldexp(mantissa / (1 << bits) + (exponent > 0), max(exponent, 1) - 1 + least)
            if bits == 2 and byte & 0x7F == 0x7C:
                value = math.inf
            assert np.isnan(found[byte]) if byte & 0x7F >= nan else found[byte] == (-value if byte & 0x80 else value)
    values = np.array([[1.0, 1 + 2.0**-24, 1 + 3 * 2.0**-24, -1e300, 1e-46, 2.0**-149]])
    with np.errstate(over="ignore"):
        nearest = values.astype(np.float32)
    assert np.array_equal(dequantize_rows(TensorType["F64"], values.view(np.uint8), 6), nearest)


def test_looking_at_types_needs_no_compiler():
    code = "import sys, store.tensor_types; sys.exit(bool({'numba', 'llvmlite'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
