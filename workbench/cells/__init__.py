"""A cell of the map: one stage of one layer on both sides, measured."""
