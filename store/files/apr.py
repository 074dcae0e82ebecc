"""Read APR v2 models as `apr import` writes them, and as converters write them that keep GGUF's names and type ids."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from kernels.errors import UnsupportedModelError, WorkbenchError
from kernels.family import Tensor
from kernels.formats.format import FloatFormat
from kernels.models import family
from kernels.weight import TensorType
from store.artifact import Artifact, TensorInfo
from store.encodings import TRANSPOSED
from store.errors import ArtifactError
from store.files.apr_config import architecture_of, config_of, row_order, settings_of
from store.files.apr_index import AprFile, read_apr
from store.files.apr_shards import all_shards, merged, of_manifest
from store.files.fields import Fields
from store.files.model_file import ModelFile
from store.known_settings import table
from store.layout import by_canonical_name, by_family, check_tensors, counted, interleaved_tensors
from store.names import is_gguf_name
from store.stored_model import StoredModel, runnable
from store.vocabulary import LazyArray, Vocabulary, token_id


def open_apr(file: ModelFile) -> StoredModel:
    """Open an APR v2 file, with the other shards of its model where it is one; `store.open.open_model` has the errors.

    Where shards are missing, or are of another model, what this one holds is there, and the refusal says which.
    """
    one = read_apr(file)
    try:
        return _opened(all_shards(one))
    except (ArtifactError, UnsupportedModelError) as error:
        return _opened([one], error)


def open_apr_manifest(manifest: ModelFile) -> StoredModel:
    """Open the shards that a manifest names; see `store.open.open_model` for the errors."""
    shards, problems = of_manifest(manifest)
    found = _opened(shards)
    found.path, found.sources = manifest.path, (manifest, *found.sources)
    found.problems += tuple(problems)
    return found


def _opened(shards: Sequence[AprFile], refusal: WorkbenchError | None = None) -> StoredModel:
    file = shards[0].file
    metadata = settings_of(file.shown, merged(shards) if len(shards) > 1 else shards[0].metadata)
    stored = [info for shard in shards for info in shard.tensors]
    tensors, wrapped = by_canonical_name(file.shown, stored, metadata.get("architecture"))
    found = StoredModel(
        path=file.path,
        format="apr",
        tensors=tensors,
        sources=tuple(shard.file for shard in shards),
        problems=(*(problem for shard in shards for problem in shard.problems), *wrapped),
        metadata=metadata,
        is_part=refusal is not None,
    )
    return runnable(found, lambda: _artifact(file, found, refusal))


def _artifact(file: ModelFile, found: StoredModel, refusal: WorkbenchError | None) -> Artifact:
    """Make of a file what can be run unless it is refused; what is known before that fails is kept in `found`."""
    fields = Fields(file.shown, found.metadata)
    found.vocabulary = _vocabulary(fields)
    if refusal is not None:
        raise refusal
    architecture = architecture_of(fields)
    if not family(architecture).in_apr:
        raise UnsupportedModelError(
            f"{file.shown} is a {architecture}, which APR has no place for; give the model as SafeTensors or GGUF."
        )
    tensors = by_family(file.shown, found.tensors, family(architecture))
    named_as_gguf = any(is_gguf_name(info.raw_name) for info in tensors.values())
    found.less_one = family(architecture).less_one and not named_as_gguf
    interleaved, rope_type, doubts = row_order(fields, architecture, tensors)
    config = config_of(file, found, fields, architecture, rope_type, tensors, doubts)
    if not named_as_gguf and fields.text("original_format") != "gguf":  # of GGUF's shapes both orders are known
        doubts += _turn(file.shown, tensors, _shapes(tensors, family(architecture).tensors(config)))
    problems, unused = check_tensors(file.shown, tensors, config)
    problems += table("apr", family(architecture)).check(fields, architecture)
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    interleaving = interleaved_tensors(tensors, heads, kv_heads) if interleaved else None
    return Artifact.of(found, config, tensors, unused, problems, interleaving, doubts)


def _shapes(tensors: Mapping[str, TensorInfo], needed: Iterable[Tensor]) -> dict[str, tuple[int, ...]]:
    """Return the shapes that a configuration implies, up to the first tensor that is missing."""
    shapes = {}
    for tensor in needed:
        if tensor.name in tensors:
            shapes[tensor.name] = tensor.shape
        elif not tensor.optional:
            break
    return shapes


def _turn(file: str, tensors: dict[str, TensorInfo], shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Turn the matrices of layers where all of them are stored by input features; say so.

    That all are can be told of those that are not square.
    """
    of_layers = [name for name in tensors if name.endswith("_proj.weight") and len(shapes.get(name, ())) == 2]
    told = [name for name in of_layers if shapes[name][0] != shapes[name][1]]
    types = [tensors[name].type for name in of_layers]
    plain = all(isinstance(type, TensorType) and isinstance(type.format, FloatFormat) for type in types)
    if not told or not plain or any(tensors[name].shape != shapes[name][::-1] for name in told):
        return []
    for name in of_layers:
        tensors[name] = replace(tensors[name], shape=shapes[name], encoding=TRANSPOSED)
    return [
        f"{file} stores {counted(of_layers)} by input features, as early entrenar checkpoints do; they are read so "
        "that every row is an output again."
    ]


def _vocabulary(fields: Fields) -> Vocabulary | None:
    tokenizer = Fields(fields.file, fields.values, "tokenizer.")
    tokens, merges, scores, token_types = (
        value if isinstance(value := tokenizer.find(key)[1], LazyArray) else None
        for key in ("vocabulary", "merges", "scores", "token_type")
    )
    model = (tokenizer.text("model", "model_type") or "").lower()
    is_bpe = model in ("gpt2", "bpe") or (not model and merges is not None)
    is_spm = model in ("llama", "spm", "sentencepiece") or (not model and scores is not None)
    if tokens is None or not (is_bpe or is_spm):
        return None
    return Vocabulary(
        kind="bpe" if is_bpe else "spm",
        tokens=tokens,
        merges=merges,
        scores=scores,
        token_types=token_types,
        pre=tokenizer.text("pre_type"),
        bos_id=token_id(tokenizer, len(tokens), "bos_token_id"),
        eos_id=token_id(tokenizer, len(tokens), "eos_token_id"),
        unk_id=token_id(tokenizer, len(tokens), "unknown_token_id"),
        add_bos=tokenizer.flag("add_bos_token"),
        add_eos=tokenizer.flag("add_eos_token"),
        add_space_prefix=tokenizer.flag("add_space_prefix"),
    )
