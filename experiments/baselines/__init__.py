"""Baselines: what else the compute of sleep could buy, one a file.

Each changes a training recipe by one integer, its knob; `registry` finds them by name, and
`experiments/matching.py` finds the knob that costs what something else costs.
"""
