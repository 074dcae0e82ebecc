"""Into one cell: its figures, its elements, their distribution."""
