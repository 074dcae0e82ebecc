"""Whether two models are fed alike, before any forward: tokenizer, special tokens, chat template, positions."""
