"""What must be fitted for a policy before a comparison can run it: a file for each trained seed.

A fit is learned from forks of a training stream, which no validation or test stream shares. To add
one, name it in `comparing.FITS` and say here how it is made; a spec then has its file as `{name}`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from adaptive_sleep.experiments.comparing import ERRORS
from adaptive_sleep.experiments.fit_gain import fit_gain
from adaptive_sleep.experiments.gain_cases import Of


def fitted(fit: str, forks: Path, folder: Path, seed: int) -> Path:
    """The file of a fit, made in `folder` from a folder of counterfactuals unless it is there."""
    out = folder / f"{fit}.safetensors"
    if not out.is_file():
        _FITS[fit](forks, out, seed)
    return out


def _gain(of: Of, forks: Path, out: Path, seed: int) -> None:
    """Fit what predicted_gain reads."""
    fit_gain([forks], out, of=of, seed=seed)


_FITS: Mapping[str, Callable[[Path, Path, int], None]] = {
    "gain": partial(_gain, "loss"),
    ERRORS: partial(_gain, "errors"),
}
