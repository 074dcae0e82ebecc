"""Contracts: YAML files of bounds that a pair must meet."""
