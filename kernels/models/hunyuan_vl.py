"""hunyuan_vl, its text model: a hunyuan_v1_dense whose pairs turn with sections that are one for text."""

from kernels.models.hunyuan_v1_dense import HunYuanDense


class HunYuanVL(HunYuanDense):
    """models/hunyuan-vl.cpp in llama-cpp-python 0.3.36."""

    model_types = ()
    gguf = "hunyuan_vl"


FAMILY = HunYuanVL()
