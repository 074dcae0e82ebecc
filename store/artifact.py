"""A model that can be run, whatever its format, seen in canonical terms."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from kernels.config import ModelConfig
from kernels.family import Factors
from kernels.layer_embeddings import TABLE
from store.names import EMBEDDING, LM_HEAD
from store.stored_model import Format, Reordered, StoredModel, TensorInfo

__all__ = ["Artifact", "Format", "TensorInfo"]


@dataclass(kw_only=True)
class Artifact(StoredModel):
    """A model whose every tensor that the forward needs is known to be there with the right shape.

    unused : names of tensors that are stored, and that the forward does not use. guesses : sentences about settings
    that the file does not say, or says in a way that is doubtful, with what is used.
    """

    config: ModelConfig
    unused: tuple[str, ...] = ()
    guesses: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        found: StoredModel,
        config: ModelConfig,
        tensors: dict[str, TensorInfo],
        unused: tuple[str, ...],
        problems: Iterable[str],
        interleaved: Mapping[str, int] | None = None,
        guesses: Iterable[str] = (),
        reordered: Mapping[str, Reordered] | None = None,
        factors: Factors | None = None,
    ) -> "Artifact":
        """Make of a stored model one that can be run; `problems` join those of its files, and so do guesses."""
        guesses = tuple(guesses)
        return cls(
            path=found.path,
            format=found.format,
            config=config,
            unused=unused,
            tensors=tensors,
            sources=found.sources,
            guesses=guesses,
            problems=(*found.problems, *problems, *guesses),
            metadata=found.metadata,
            interleaved=interleaved or {},
            reordered=reordered or {},
            minus_exp=found.format == "safetensors",
            less_one=found.less_one,
            factors=factors or {},
            vocabulary=found.vocabulary,
        )

    @property
    def tied(self) -> bool:
        """Whether the output head is the embedding matrix."""
        return self.config.tie_word_embeddings

    def for_length(self, tokens: int) -> "Artifact":
        """Return the model with the settings that hold for so many tokens; see `ModelConfig.for_length`."""
        return replace(self, config=self.config.for_length(tokens))

    def with_vocabulary(self, rows: int) -> "Artifact":
        """Return the same model with the first `rows` tokens of its vocabulary only.

        The files stay as they are, and so does their hash.
        """
        tensors = dict(self.tensors)
        for name in (EMBEDDING, LM_HEAD, TABLE):
            if name in tensors:
                tensors[name] = tensors[name].some_rows(0, rows)
        return replace(self, tensors=tensors, config=replace(self.config, vocab_size=rows))
