"""Mistakes that a runtime makes, by the stage that shows them; each predicts what is then recorded."""
