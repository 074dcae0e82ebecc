"""Copies of a tiny model that carry one tokenizer and one chat template, as Hugging Face and as llama.cpp keep them.

Whatever is said differently of one copy is a mistake of a converter.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from tests.gguf_files import byte_tokens, write_gguf
from tests.hf_files import write_safetensors
from tests.memory_model import MemoryModel, random_model

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
WITH_BOS = "{{ bos_token }}" + CHATML
WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
QWEN2 = WORDS + r"|\s*[\r\n]+|\s+(?!\S)|\s+"  # as tokenizer.json of Qwen2 has it
MERGES = (("h", "e"), ("l", "l"), ("Ġ", "2"), ("a", "a"), ("u", "s"))
BYTES = byte_tokens("bpe", 257)


@dataclass(frozen=True)
class TinyTokenizer:
    """A byte-level tokenizer of 257 + 5 + 3 tokens; `pre` is llama.cpp's name of how it cuts words.

    added : special tokens behind all others. plain : others, that no merge makes. add_bos : BOS before every text.
    """

    template: str | None = CHATML
    pre: str = "qwen2"
    added: tuple[str, ...] = ("<s>", "<|im_start|>", "<|im_end|>")
    bos: str | None = "<s>"
    eos: str = "<|im_end|>"
    add_bos: bool = False
    normalizer: str | None = None
    plain: tuple[str, ...] = ()

    @property
    def tokens(self) -> list[str]:
        return [*BYTES, *map("".join, MERGES), *self.plain, *self.added]

    def gguf(self) -> dict[str, object]:
        """The keys of a GGUF file."""
        kinds = [3, *[1] * (len(self.tokens) - 1 - len(self.added)), *[3] * len(self.added)]
        keys = {
            "model": "gpt2",
            "pre": self.pre,
            "tokens": self.tokens,
            "token_type": kinds,
            "merges": [" ".join(pair) for pair in MERGES],
            "eos_token_id": self.tokens.index(self.eos),
            "add_bos_token": self.add_bos,
        }
        if self.bos is not None:
            keys["bos_token_id"] = self.tokens.index(self.bos)
        template = {} if self.template is None else {"tokenizer.chat_template": self.template}
        return {f"tokenizer.ggml.{key}": value for key, value in keys.items()} | template

    def write_json(self, folder: Path) -> None:
        """tokenizer.json and tokenizer_config.json."""
        from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

        plain = {token: n for n, token in enumerate(self.tokens) if token not in self.added}
        tokenizer = Tokenizer(models.BPE(plain, list(MERGES)))
        if self.pre == "gpt-2":
            tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
        else:
            cut = pre_tokenizers.Split(Regex(QWEN2), "isolated")
            spell = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
            tokenizer.pre_tokenizer = pre_tokenizers.Sequence([cut, spell])
        if self.normalizer == "NFC":
            tokenizer.normalizer = normalizers.NFC()
        tokenizer.add_tokens([AddedToken(BYTES[0], special=True, normalized=False)])
        tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in self.added])
        bos = [(self.bos, self.tokens.index(self.bos))] if self.add_bos and self.bos else []
        single = f"{self.bos} $A" if bos else "$A"
        tokenizer.post_processor = processors.TemplateProcessing(single=single, special_tokens=bos)
        folder.mkdir(parents=True, exist_ok=True)
        tokenizer.save(str(folder / "tokenizer.json"))
        said = {"bos_token": self.bos, "eos_token": self.eos, "chat_template": self.template}
        said |= {"tokenizer_class": "PreTrainedTokenizerFast"}
        (folder / "tokenizer_config.json").write_text(json.dumps({k: v for k, v in said.items() if v is not None}))


def chat_model(rows: int | None = None, **sizes) -> MemoryModel:
    """The model that carries it; `rows` of its embedding, one for each token unless it is padded."""
    return random_model("qwen2", vocab=rows or len(TinyTokenizer().tokens), **{"layers": 1, "seed": 3} | sizes)


def write_chat_folder(folder: Path, tokenizer: TinyTokenizer, model: MemoryModel | None = None) -> Path:
    write_safetensors(folder, model or chat_model())
    tokenizer.write_json(folder)
    return folder


def write_chat_gguf(path: Path, tokenizer: TinyTokenizer, model: MemoryModel | None = None) -> Path:
    write_gguf(path, model or chat_model(), tokenizer.gguf())
    return path
