"""Which parameters of a study decide its loss, and which its cost, by Optuna's PED-ANOVA.

It needs no other library, and weighs parameters that only some policies have. fANOVA needs
scikit-learn, which is no dependency.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import optuna
import polars as pl
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial

LEAST = 10  # whole trials from which parameters are weighed
FEW = 5  # of them at least are taken as the good ones


def importance(study: optuna.Study, whole: list[FrozenTrial]) -> tuple[pl.DataFrame | None, str]:
    """How much each parameter tells the good trials from the others, for the loss and for the
    cost; shares of the sum, 0 to 1. `whole`: the trials that ran to their end.

    Columns: `parameter`, `loss`, `flops`, `trials` (whole ones that have it). None, with the
    reason, where there are too few trials or all are alike.
    """
    if len(whole) < LEAST:
        return None, (
            f"{len(whole)} trials ran to their end, too few to weigh the parameters: at least "
            f"{LEAST} are needed."
        )
    names = sorted({name for it in whole for name in it.params})
    numbers = {it.number for it in whole}
    weights = {
        "loss": _weights(study, numbers, lambda it: it.values[0]),
        "flops": _weights(study, numbers, lambda it: it.user_attrs["flops_per_event"]),
    }
    if not any(sum(it.values()) for it in weights.values()):
        return None, "No parameter tells the good trials from the others."
    shares = {
        key: [it.get(name, 0.0) / (sum(it.values()) or 1.0) for name in names]
        for key, it in weights.items()
    }
    counts = [sum(name in it.params for it in whole) for name in names]
    frame = pl.DataFrame({"parameter": names, **shares, "trials": counts})
    alike = (
        "" if any(shares["loss"]) else "No parameter tells trials of a low loss from the others."
    )
    return frame.sort(["loss", "parameter"], descending=[True, False]), alike


def _weights(
    study: optuna.Study, numbers: set[int], of: Callable[[FrozenTrial], float]
) -> dict[str, float]:
    """The weight of each parameter for a figure of which less is better, by the trials that ran to
    their end: what is not finite Optuna leaves out."""
    share = min(0.5, max(0.1, FEW / len(numbers)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that low is good, and that a parameter is seldom open
        return get_param_importances(
            study,
            evaluator=PedAnovaImportanceEvaluator(target_quantile=share),
            target=lambda it: float(of(it)) if it.number in numbers else math.nan,
            normalize=False,
        )
