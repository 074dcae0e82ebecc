"""Everything tensors are read from or written to: model files, recorded traces, the HDF5 store.

Part of layer-workbench, and told by these words from foreign packages of the same name.
"""
