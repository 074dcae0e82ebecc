"""Benchmarks: this project beside the engines it watches, on models of real shape (`make bench`)."""
