"""Finding the first cell that is really wrong, and which mistake made it so."""
