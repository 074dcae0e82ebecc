"""Model files: one reader for each container."""
