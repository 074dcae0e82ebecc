"""Everything tensors are read from or written to: model files, recorded traces, the HDF5 store."""
