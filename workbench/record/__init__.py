"""Recording traces in engines that are installed: each engine runs in its own interpreter, this process writes."""
