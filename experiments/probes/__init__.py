"""Probes: what a trained model keeps, and when its signals speak; one question a file.

Each has `run`, `table_of` and `said`; the command, in commands_probe.py, finds them by name.
"""
