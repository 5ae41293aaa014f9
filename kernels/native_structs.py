"""What calls hand over to the compiled library: the structs of `native.c`, field for field.

`native`, the other `native_*` and `dense` fill them in.
"""

from __future__ import annotations

import ctypes

Three = ctypes.c_int64 * 3
Two = ctypes.c_int64 * 2
_SIZES = ("batch", "steps", "heads", "key", "value", "threads")
INPUTS = ("q", "k", "v", "g", "beta", "start", "reference")
_OUTPUTS = ("o", "final", "change", "errors", "states", "d_o", "d_final")
GRADIENTS = ("d_q", "d_k", "d_v", "d_g", "d_beta", "d_start")


class Call(ctypes.Structure):
    """`struct call`: the gated delta rule."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in _SIZES),
        *((name, ctypes.c_void_p) for name in INPUTS),
        *((f"{name}_at", Three) for name in INPUTS[:5]),
        ("lengths", ctypes.c_void_p),
        *((name, ctypes.c_void_p) for name in _OUTPUTS),
        ("d_o_at", Three),
        *((name, ctypes.c_void_p) for name in GRADIENTS),
    )


class Rows(ctypes.Structure):
    """`struct rows`."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("count", "size", "heads", "value", "threads")),
        ("epsilon", ctypes.c_double),
        *((name, ctypes.c_void_p) for name in ("x", "gate", "gain", "d_y", "d_q", "d_k")),
        *((name, ctypes.c_void_p) for name in ("y", "q", "k", "scale")),
        *((name, ctypes.c_void_p) for name in ("d_x", "d_gate", "d_gain", "sums")),
    )


class Attention(ctypes.Structure):
    """`struct attention`."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("batch", "queries", "keys", "heads", "size")),
        ("threads", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("q", "k", "v")),
        *((name, Three) for name in ("q_at", "k_at", "v_at")),
        *((name, ctypes.c_void_p) for name in ("mask", "weights", "o", "d_o")),
        *((name, ctypes.c_void_p) for name in ("d_q", "d_k", "d_v")),
        *((name, Two) for name in ("d_q_at", "d_k_at")),
    )


class Look(ctypes.Structure):
    """`struct look`."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("count", "steps", "size", "threads")),
        *((name, ctypes.c_double) for name in ("epsilon", "floor")),
        *((name, ctypes.c_void_p) for name in ("lengths", "targets", "x", "before", "add")),
        *((name, ctypes.c_void_p) for name in ("pooled", "norms", "moved", "sum")),
        ("parts", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("squares", "change")),
        ("finite", ctypes.c_int64),
    )


class Network(ctypes.Structure):
    """`struct dense`."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("count", "layers", "widest", "relu")),
        *((name, ctypes.c_void_p) for name in ("sizes", "weights", "biases")),
        ("x", ctypes.c_char_p),  # an address, or numbers
        *((name, ctypes.c_void_p) for name in ("y", "room")),
        ("width", ctypes.c_int64),
        *((name, ctypes.c_double) for name in ("least", "most")),
        *((name, ctypes.c_char_p) for name in ("one", "other", "which")),
    )
