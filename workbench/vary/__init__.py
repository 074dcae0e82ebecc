"""One model against itself: two runs that differ in one setting, and whether they may differ as they do."""
