"""Three sides of one question: a model, the copy that a quantizer made of it, and what an engine computed with that."""
