"""What runs in the interpreter with torch, and imports nothing of the project."""
