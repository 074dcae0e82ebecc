"""codeshell: a starcoder2 under another name; its files may have q, k and v in one tensor."""

from kernels.models.starcoder2 import Starcoder2


class CodeShell(Starcoder2):
    """models/codeshell.cpp in llama-cpp-python 0.3.36; transformers has no such model of its own."""

    model_types = ()
    gguf = "codeshell"


FAMILY = CodeShell()
