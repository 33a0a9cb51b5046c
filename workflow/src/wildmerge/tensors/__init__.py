"""Tensors: checkpoint folders read and written, digests, chunks, spectral tools."""
