"""How kernels are compiled, kept and shared among threads, and what Numba does not offer by itself."""
