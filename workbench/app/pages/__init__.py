"""Lists and texts that take the whole screen."""
