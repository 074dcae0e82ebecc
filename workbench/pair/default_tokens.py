"""What two models run where nobody said what: a short prompt, or where neither has a tokenizer the first few ids."""

from collections.abc import Sequence

from store.artifact import Artifact
from store.text import printable
from workbench.pair.pair import Source
from workbench.pair.prompt import TokenizerError
from workbench.pair.tokens import Tokens, shared_tokens

PROMPT = "def add(a, b):"
_FIRST, _LAST = 1, 8  # id 0 is often the one for unknown or unused tokens
_OTHERS = "--prompt TEXT or --tokens 1,2,3 choose others"


def default_tokens(sources: Sequence[Source], preferred: str | None = None) -> tuple[Tokens, str] | None:
    """Return the tokens that two models run by default, and the sentence that says so.

    preferred : the prompt that the user's preferences have for that. None where a side is a recorded trace: what it was
    recorded with decides. TokenizerError where the two tokenize the prompt differently, which is a finding.
    """
    models = [source for source in sources if isinstance(source, Artifact)]
    if len(models) < len(sources):
        return None
    why = "neither side has a tokenizer"
    if any(model.vocabulary is not None for model in models):
        try:
            found = shared_tokens(models, None, preferred or PROMPT)
        except TokenizerError as error:
            if error.facts:
                raise
            why = printable(str(error), 400).partition(";")[0]
        else:
            shown = f'"{printable(preferred or PROMPT, 200)}"' + (" of your preferences" if preferred else "")
            return found, f"no prompt was given, so both run {shown} ({len(found.ids)} tokens); {_OTHERS}"
    last = min(_LAST, *(model.config.vocab_size - 1 for model in models))
    ids = tuple(range(min(_FIRST, last), last + 1))
    named = ",".join(map(str, ids))
    return Tokens(ids, None), f"no prompt was given and {why}, so both run the tokens {named}; {_OTHERS}"
