"""Recordings on disk, their sources, and how they are cut into windows; no tensors here.

Import from the modules: `events`, `recording`, `writer`, `cutting`, and one per source.
"""
