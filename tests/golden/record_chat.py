"""Record what transformers and llama.cpp feed a model of a conversation: chat.json.

usage: python -m tests.golden.record_chat PYTHON (which has transformers and llama-cpp-python)
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.chat_models import CHATML, WITH_BOS, TinyTokenizer, write_chat_folder, write_chat_gguf

GOLDEN = Path(__file__).parent / "chat.json"
CASES = {
    "chatml": CHATML,
    "bos": WITH_BOS,
    "blocks": """{%- if messages[0].role == 'system' %}
    {%- set system, messages = messages[0].content | trim, messages[1:] %}
{%- endif %}
{{ bos_token }}{{ system }}
{%- for message in messages %}
    {% if message.role == 'user' %}
{{ '<|im_start|>' }}{{ message.content | trim | tojson }}
    {%- else %}
        {%- generation %}{{ message.content }}{{ eos_token }}{% endgeneration %}
        {%- continue %}
    {% endif %}
{%- endfor %}{% set seen = namespace(count=0) %}{% for m in messages %}{% set seen.count = seen.count + 1 %}{% endfor %}
{{ seen.count }} turns, {{ dict(a=1).a }}{{ '<|im_start|>' if add_generation_prompt }}""",
}
CONVERSATIONS = [
    [{"role": "user", "content": "Hello, what is 2 + 22?"}],
    [
        {"role": "system", "content": " You are terse.\n"},
        {"role": "user", "content": "Übermäßig\n\n  'S <s> & <|im_end|>"},
        {"role": "assistant", "content": "us\t你好"},
        {"role": "user", "content": "x" * 3 + " "},
    ],
]
_TRANSFORMERS = """
import json, sys
from transformers import AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
conversations = json.loads(sys.argv[2])
texts = [tokenizer.apply_chat_template(c, tokenize=False, add_generation_prompt=True) for c in conversations]
ids = [tokenizer.apply_chat_template(c, add_generation_prompt=True)["input_ids"] for c in conversations]
print(json.dumps({"texts": texts, "ids": ids}))
"""
_LLAMA_CPP = """
import json, sys
from llama_cpp import Llama
llama = Llama(sys.argv[1], vocab_only=True, verbose=False)
texts = json.loads(sys.argv[2])
print(json.dumps([llama.tokenize(text.encode(), add_bos=True, special=True) for text in texts]))
"""


def main() -> None:
    python, found = sys.argv[1], {}
    for name, template in CASES.items():
        with tempfile.TemporaryDirectory() as place:
            tokenizer = TinyTokenizer(template, add_bos=name == "bos")
            folder = write_chat_folder(Path(place) / "hf", tokenizer)
            file = write_chat_gguf(Path(place) / "model.gguf", tokenizer)
            case = asked(python, _TRANSFORMERS, folder, CONVERSATIONS)
            texts = [text.removeprefix("<s>") if tokenizer.add_bos else text for text in case["texts"]]
            found[name] = case | {"llama_cpp": asked(python, _LLAMA_CPP, file, texts)}
    GOLDEN.write_text(json.dumps(found, ensure_ascii=False) + "\n", encoding="utf-8")


def asked(python: str, script: str, model: Path, value: object):
    done = subprocess.run(
        [python, "-c", script, str(model), json.dumps(value)], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


if __name__ == "__main__":
    main()
