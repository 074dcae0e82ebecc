"""Make another type of a GGUF with llama.cpp's quantizer, of whatever types its tensors have.

usage: python -m benchmarks.peers.requantize '{"model": PATH, "output": PATH, "ftype": NUMBER}'
"""

import ctypes
import json
import sys

from llama_cpp import llama_cpp


def main() -> int:
    """Do it; the exit code is that of the quantizer."""
    job = json.loads(sys.argv[1])
    how = llama_cpp.llama_model_quantize_default_params()
    how.ftype, how.allow_requantize = job["ftype"], True
    return int(llama_cpp.llama_model_quantize(job["model"].encode(), job["output"].encode(), ctypes.byref(how)))


if __name__ == "__main__":
    sys.exit(main())
