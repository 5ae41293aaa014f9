"""What models are run in: float32, whatever torch is told to make or to cast to elsewhere."""

from __future__ import annotations

import torch

from adaptive_sleep.streams.errors import InputError


def check_float32(what: str, device: str = "cpu") -> None:
    """Raise InputError, naming what is to be done, where torch makes tensors of another type than
    float32 by default, or casts to one (autocast) on a device."""
    default = torch.get_default_dtype()
    if default != torch.float32:
        raise InputError(
            f"{what}: torch's default dtype is {default}; models run in torch.float32: "
            "torch.set_default_dtype(torch.float32)"
        )
    if torch.is_autocast_enabled(device):
        raise InputError(
            f"{what}: under torch.autocast to {torch.get_autocast_dtype(device)}; models run in "
            f"torch.float32: leave it, or torch.autocast({device!r}, enabled=False)"
        )
