"""The process and its machine: signals, children, damaged files, the installation."""
