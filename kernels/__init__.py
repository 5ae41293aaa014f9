"""Tensors only: the gated delta rule in its forms, the short causal convolution, attention, what
blocks do row by row, what signals look at, and small networks that policies ask.

What a stream, a window or a sleep is, nothing here knows.
"""

from .attention import attend, attend_nearest, attend_packed, attend_weighed, torch_attend
from .convolution import causal_conv
from .dense import Dense
from .dispatch import BACKENDS, chosen_backend, gated_delta_rule
from .looks import added, moves, pooled, relative, score_logits
from .reference import gated_delta_rule_reference
from .rows import gated_norm, keys_and_values, rms_norm, squared_relu
from .step import gated_delta_step

__all__ = [
    "BACKENDS",
    "Dense",
    "added",
    "attend",
    "attend_nearest",
    "attend_packed",
    "attend_weighed",
    "causal_conv",
    "chosen_backend",
    "gated_delta_rule",
    "gated_delta_rule_reference",
    "gated_delta_step",
    "gated_norm",
    "keys_and_values",
    "moves",
    "pooled",
    "relative",
    "rms_norm",
    "score_logits",
    "squared_relu",
    "torch_attend",
]
