"""Up to how many times what rounding can cause a stage may be off and still is right; docs/bisect.md."""

LIMIT = 8.0
