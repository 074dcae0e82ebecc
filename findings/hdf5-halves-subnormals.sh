#!/usr/bin/env bash
# HDF5's float conversion halves a subnormal number that should be rounded up to a power of two.
#
# Version: h5py 3.16.0 (HDF5 2.0.0) and h5py 3.12.1 (HDF5 1.14.4), x86-64 Linux wheels, numpy 2.4.6.
# Behaviour: `dataset[...] = x` with x of another float type converts in HDF5 (`create_dataset(data=x)` in numpy). Where
#   HDF5's own bit-by-bit conversion does it and the result is subnormal, a mantissa that carries into the next power of
#   two loses the carry: 7.9 of the smallest steps become 4 and not 8, and 0.9999 of the smallest normal number (6.1e-5)
#   becomes half of it. HDF5 2.0 does so for types that are not the machine's own: float16 of the other byte order,
#   float32 of the other byte order (from float64), bfloat16 declared as a 16-bit float. 1.14.4 does so for all float16.
#   numpy, given the same values, rounds correctly.
# Why it matters: a tensor store in float16 is off by up to a factor of two in weights below 6.1e-5, in half of those
#   between 1 and 2 steps, and a copy made with another version of h5py, or of another byte order, is different. As all
#   of it is small, a comparison with an absolute tolerance never shows it.
# Output seen on 2026-11-27:
#   in steps of 2**-24          1.9   3.9   7.9   100.9   1022.9   1023.9
#   numpy                       2     4     8     101     1023     1024
#   HDF5 1.14.4 float16         1     2     4     101     1023     512
#   HDF5 1.14.4 float16 swapped 1     2     4     101     1023     512
#   HDF5 2.0.0 float16          2     4     8     101     1023     1024
#   HDF5 2.0.0 float16 swapped  1     2     4     101     1023     512
#   HDF5 2.0.0 bfloat16: 1.1754e-38 becomes 5.87747e-39
#   HDF5 2.0.0 float32 swapped: 7.9 steps of 2**-149 become 4
# The script fails if this changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for version in 3.12.1 3.16.0; do
  python3 -m venv "$work/$version"
  "$work/$version/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 "h5py==$version"
done
cat > "$work/probe.py" <<'PY'
import sys
import h5py, numpy as np

version, step = h5py.version.hdf5_version, 2.0**-24
values = (np.array([1.9, 3.9, 7.9, 100.9, 1022.9, 1023.9]) * step).astype(np.float32)
show = lambda name, steps: print(f"{name:<28}" + " ".join(f"{f'{x:.6g}':<{w}}" for x, w in zip(steps, WIDTHS)).rstrip())
WIDTHS = (5, 5, 5, 7, 8, 8)


def through(type):
    with h5py.File(f"{sys.argv[1]}/x.h5", "w") as file:
        data = file.create_dataset("x", values.shape, dtype=type)
        data[...] = values
        return (data[...].astype(np.float64) / step).tolist()


right, halved = [2, 4, 8, 101, 1023, 1024], [1, 2, 4, 101, 1023, 512]
if version == "1.14.4":
    show("in steps of 2**-24", values / step)
    show("numpy", values.astype("f2").astype(np.float64) / step)
assert (values.astype("f2").astype(np.float64) / step).tolist() == right
native, swapped = ("<f2", ">f2") if sys.byteorder == "little" else (">f2", "<f2")
seen = through(native), through(swapped)
show(f"HDF5 {version} float16", seen[0])
show(f"HDF5 {version} float16 swapped", seen[1])
assert seen == ((halved if version == "1.14.4" else right), halved), "subnormal numbers are rounded differently now"
if version == "2.0.0":
    brain = h5py.h5t.IEEE_F32LE.copy()
    brain.set_fields(15, 7, 8, 0, 7)
    brain.set_size(2)
    with h5py.File(f"{sys.argv[1]}/x.h5", "w") as file:
        h5py.h5d.create(file.id, b"x", brain, h5py.h5s.create_simple((1,)))
        file["x"][...] = np.float32(1.1754e-38)
        found = float(file["x"][0])
    print(f"HDF5 {version} bfloat16: 1.1754e-38 becomes {found:.6g}")
    assert found == 2.0**-127, "bfloat16 is rounded differently now"
    with h5py.File(f"{sys.argv[1]}/x.h5", "w") as file:
        data = file.create_dataset("x", (1,), dtype=swapped[0] + "f4")
        data[...] = np.array([7.9 * 2.0**-149])
        found = float(data[0]) / 2.0**-149
    print(f"HDF5 {version} float32 swapped: 7.9 steps of 2**-149 become {found:g}")
    assert found == 4, "float32 is rounded differently now"
PY
for version in 3.12.1 3.16.0; do "$work/$version/bin/python" "$work/probe.py" "$work"; done
echo "as described"
