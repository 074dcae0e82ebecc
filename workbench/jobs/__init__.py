"""Questions to a pair: what is asked, the process that works on it, what it answers."""
