"""Which tensors of a model a stage uses, and what its channels are."""

from kernels.config import ModelConfig
from kernels.models import Graph
from kernels.stages import Site


def stage_tensors(site: Site, config: ModelConfig) -> tuple[str, ...]:
    """Canonical names of the tensors that a stage may use, optional ones too; empty where it combines other stages."""
    stage = Graph(config).stage(site)
    return () if stage is None else stage.tensors


def channel_head(site: Site, channel: int, config: ModelConfig) -> str:
    """Name head and channel within it, "q31.127", for the stages whose heads are flattened; empty for the others."""
    stage = Graph(config).stage(site)
    if stage is None or stage.heads is None:
        return ""
    size, parts = stage.heads
    for name, channels in parts:
        if channel < channels:
            return f"{name}{channel // size}.{channel % size}"
        channel -= channels
    return ""


def channel_name(site: Site, channel: int, config: ModelConfig) -> str:
    """Name a channel in running text: its number, with head and channel within it where heads are flattened."""
    head = channel_head(site, channel, config)
    return f"{channel} ({head})" if head else str(channel)
