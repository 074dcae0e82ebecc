"""A small trained model that ships with the program, and the faults that a copy of it can be given."""

from pathlib import Path

MODEL = Path(__file__).parent / "tiny-qwen2-q4_k_m.gguf"
PROMPT = "def add(a, b):"
