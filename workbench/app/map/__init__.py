"""The map of cells: its grid, its keys, and the cell under the cursor."""
