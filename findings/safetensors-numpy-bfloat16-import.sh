#!/usr/bin/env bash
# Whether safetensors.numpy reads bfloat16 depends on whether any module has imported ml_dtypes before.
#
# Version: safetensors 0.8.0, numpy 2.4.6, ml_dtypes 0.6.0.
# Behaviour: `load_file` and `safe_open(framework="numpy")` ask numpy for a type called "bfloat16". numpy has none until
#   something imports ml_dtypes, which registers it for the whole process: installing the package is not enough, and
#   importing it anywhere (as jax does) is. `load`, for the same bytes in memory, has a table of its own without
#   bfloat16 and fails either way, with another exception. For float8 the import does not help either of them, although
#   `save` and `save_file` take arrays of that type: they write files that the same module cannot read.
# Why it matters: a reader passes its tests next to a package that imports ml_dtypes and fails in production with
#   "data type 'bfloat16' not understood", and most published models are bfloat16. Reading from bytes is no way round.
# Output seen on 2026-11-27 (ml_dtypes is installed in both cases):
#   not imported   BF16     load_file TypeError      safe_open TypeError      load KeyError
#   not imported   F8_E4M3  load_file AttributeError safe_open AttributeError load KeyError
#   imported       BF16     load_file bfloat16       safe_open bfloat16       load KeyError
#   imported       F8_E4M3  load_file AttributeError safe_open AttributeError load KeyError
# The script fails if this changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 safetensors==0.8.0 ml_dtypes==0.6.0
cat > "$work/write.py" <<'PY'
import sys
import ml_dtypes, numpy as np
from safetensors.numpy import save_file

for kind, type in (("BF16", ml_dtypes.bfloat16), ("F8_E4M3", ml_dtypes.float8_e4m3fn)):
    save_file({"x": np.ones((2, 4), type)}, f"{sys.argv[1]}/{kind}.safetensors")
PY
cat > "$work/read.py" <<'PY'
import sys
from pathlib import Path
from safetensors import safe_open
from safetensors.numpy import load, load_file

if sys.argv[2] == "imported":
    import ml_dtypes


def opened(path):
    with safe_open(path, framework="numpy") as file:
        return {"x": file.get_tensor("x")}


for kind in ("BF16", "F8_E4M3"):
    path, found = Path(sys.argv[1]) / f"{kind}.safetensors", []
    for name, read in (("load_file", load_file), ("safe_open", opened), ("load", lambda path: load(path.read_bytes()))):
        try:
            result = str(read(path)["x"].dtype)
        except (AttributeError, KeyError, TypeError) as error:
            result = type(error).__name__
        found.append(f"{name} {result:<14}")
    print(f"{sys.argv[2]:<14} {kind:<8} {' '.join(found)}".rstrip())
PY
"$work/venv/bin/python" "$work/write.py" "$work"
{
  "$work/venv/bin/python" "$work/read.py" "$work" "not imported"
  "$work/venv/bin/python" "$work/read.py" "$work" imported
} | tee "$work/seen"
diff - "$work/seen" <<'SEEN' || { echo "this has changed"; exit 1; }
not imported   BF16     load_file TypeError      safe_open TypeError      load KeyError
not imported   F8_E4M3  load_file AttributeError safe_open AttributeError load KeyError
imported       BF16     load_file bfloat16       safe_open bfloat16       load KeyError
imported       F8_E4M3  load_file AttributeError safe_open AttributeError load KeyError
SEEN
echo "as described"
