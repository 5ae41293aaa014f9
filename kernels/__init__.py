"""Tensors only: the gated delta rule in its forms, and the short causal convolution.

What a stream, a window or a sleep is, nothing here knows.
"""

from .convolution import causal_conv
from .dispatch import BACKENDS, chosen_backend, gated_delta_rule
from .reference import gated_delta_rule_reference
from .step import gated_delta_step

__all__ = [
    "BACKENDS",
    "causal_conv",
    "chosen_backend",
    "gated_delta_rule",
    "gated_delta_rule_reference",
    "gated_delta_step",
]
