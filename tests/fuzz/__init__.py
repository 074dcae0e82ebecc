"""Files that lie, by the thousand: sound ones whose parts are changed, and what must hold of whoever reads them."""
