"""The folder that holds everything about one investigation, and what the screen showed of it."""
