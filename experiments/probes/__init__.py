"""Probes: what a trained model keeps and when its signals speak, each a file with one question."""
