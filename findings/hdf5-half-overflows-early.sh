#!/usr/bin/env bash
# `dataset[...] = x` stores 65505 in a float16 dataset as infinity; `create_dataset(data=x, dtype="f2")` stores 65504.
#
# Version: h5py 3.16.0 (HDF5 2.0.0, x86-64 Linux wheel), numpy 2.4.6.
# Behaviour: the largest float16 is 65504, and rounding to nearest takes everything below 65520 to it. numpy does that,
#   and create_dataset with `data` lets numpy cast. Assigning an array lets HDF5 convert, which acts as if it compared
#   with 65504 before it rounds: 65504.0078 is infinite already, also when a float32 dataset is read as float16 with
#   `astype`. For the other byte order HDF5 is too late instead: 65520 to 65535 become 65504. float64 to float32 is the
#   same, just above 3.4028235e38. There is no exception and no warning; numpy has one for casts that overflow.
# Why it matters: a check before storing (`numpy.isfinite(x.astype("f2")).all()`) does not keep infinities out of a
#   tensor store, and one of them turns every product with its row into infinity or NaN. Changing a writer from
#   `create_dataset(data=x)` to an empty dataset filled in parts changes what is stored.
# Output seen on 2026-11-27:
#   float32       numpy       created     assigned    swapped     read as float16
#   65504         65504       65504       65504       65504       65504
#   65504.0078    65504       65504       inf         65504       inf
#   65510         65504       65504       inf         65504       inf
#   65519         65504       65504       inf         65504       inf
#   65520         inf         inf         inf         65504       inf
#   65536         inf         inf         inf         inf         inf
#   float64 3.402823517e+38 as float32: numpy 3.40282e+38, assigned inf, swapped 3.40282e+38
# The script fails if this changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 h5py==3.16.0
"$work/venv/bin/python" - "$work" <<'PY'
import sys
import h5py, numpy as np

native, swapped = ("<", ">") if sys.byteorder == "little" else (">", "<")


def through(x, stored, wanted):
    """x, assigned to a dataset of type `stored`, as it comes back when it is read as `wanted`."""
    with h5py.File(f"{sys.argv[1]}/x.h5", "w") as file:
        data = file.create_dataset("x", x.shape, dtype=stored)
        data[...] = x
        return data.astype(wanted)[...].astype(np.float64)


def created(x, stored):
    with h5py.File(f"{sys.argv[1]}/x.h5", "w") as file:
        return file.create_dataset("x", data=x, dtype=stored)[...].astype(np.float64)


values = np.array([65504, 65504.0078125, 65510, 65519, 65520, 65536], np.float32)
with np.errstate(over="ignore"):
    seen = {"numpy": values.astype("f2").astype(np.float64), "created": created(values, native + "f2"),
            "assigned": through(values, native + "f2", native + "f2"),
            "swapped": through(values, swapped + "f2", swapped + "f2"),
            "read as float16": through(values, native + "f4", native + "f2")}
print("float32".ljust(14) + "".join(name.ljust(12) for name in seen).rstrip())
for i, value in enumerate(values):
    print(f"{value:<14.9g}" + "".join(f"{column[i]:<12g}" for column in seen.values()).rstrip())
first = {name: float(values[np.isinf(column)][0]) for name, column in seen.items()}
early = 65504.0078125
assert first == {"numpy": 65520, "created": 65520, "assigned": early, "swapped": 65536, "read as float16": early}, first
above = np.array([float(np.finfo(np.float32).max) * (1 + 2.0**-26)])
double = [above.astype("f4")[0], *(through(above, order + "f4", order + "f4")[0] for order in (native, swapped))]
print(f"float64 {above[0]:.10g} as float32: numpy {double[0]:g}, assigned {double[1]:g}, swapped {double[2]:g}")
assert np.isinf(double).tolist() == [False, True, False], "float64 is rounded differently now"
PY
echo "as described"
