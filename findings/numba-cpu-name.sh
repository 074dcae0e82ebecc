#!/usr/bin/env bash
# NUMBA_CPU_NAME does not lower the instruction set; only "generic" does.
#
# Version: numba 0.68.1, llvmlite 0.50.0, x86-64 machine with AVX2.
# Behaviour: with NUMBA_CPU_NAME=nehalem (or x86-64), processors that have no AVX, kernels are still emitted with AVX
#   registers: the name is changed, but the feature list stays that of the host and is added to it. The one name that
#   empties the list is "generic"; otherwise NUMBA_CPU_FEATURES has to be given too.
# Why it matters: whoever compiles a cache for older machines, or tests that code does not need AVX2 by naming an older
#   processor, tests nothing, and the cache ends in an illegal instruction elsewhere.
# Output seen on 2026-11-27:
#   (host)                          AVX registers: True
#   nehalem                         AVX registers: True
#   x86-64                          AVX registers: True
#   nehalem, features -avx,-avx2    AVX registers: False
#   generic                         AVX registers: False
# The script fails if this changes.
set -euo pipefail
grep -qw avx2 /proc/cpuinfo || { echo "this machine has no AVX2, so there is nothing to see"; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check numba==0.68.1 llvmlite==0.50.0 numpy==2.4.6
cat > "$work/probe.py" <<'PY'
import numba, numpy as np

@numba.njit(fastmath=True)
def total(values):
    result = np.float32(0)
    for value in values:
        result += value
    return result

total(np.ones(64, np.float32))
print("%ymm" in next(iter(total.inspect_asm().values())))
PY
probe() { env "${@:2}" "$work/venv/bin/python" "$work/probe.py" | { read -r seen; printf '%-31s AVX registers: %s\n' "$1" "$seen"; } }
{
  probe "(host)" A=1
  probe nehalem NUMBA_CPU_NAME=nehalem
  probe x86-64 NUMBA_CPU_NAME=x86-64
  probe "nehalem, features -avx,-avx2" NUMBA_CPU_NAME=nehalem NUMBA_CPU_FEATURES=-avx,-avx2
  probe generic NUMBA_CPU_NAME=generic
} | tee "$work/seen"
[ "$(awk '{print $NF}' "$work/seen" | tr '\n' ' ')" = "True True True False False " ] || { echo "this has changed"; exit 1; }
echo "as described"
