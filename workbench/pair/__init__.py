"""What the two sides of a question are: models or traces, their numeric paths, the tokens that both run."""
