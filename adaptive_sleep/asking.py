"""A window of questions through the blocks: read once, or in loops, which is compute at wake time.

What is asked, and who stores what it leaves, is not known here.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from adaptive_sleep.attention import KVCache, Visibility
from adaptive_sleep.memory import FastWeights
from adaptive_sleep.model import Model, Pass

# When questions are asked in training: after the last pass over the window that was slept on, after
# every one, or after the last pass and every loop over the questions
Lessons = Literal["last", "every", "loops"]


def ask(
    model: Model,
    embedded: Tensor,
    lengths: Tensor,
    weights: FastWeights,
    cache: KVCache | None,
    *,
    seen: Visibility,
    reach: int | None,
) -> list[Pass]:
    """Run the blocks over questions `[B, T, d]`, `lengths` int64 `[B]` of them valid, as often as
    the model `loops`: what each loop gives. The last one answers, and what it left is left.

    Every loop reads the same fast weights and the same `cache`, and the loop before it as a sleep
    pass does (`Inject`). `seen` and `reach` as in `Model.run`.
    """
    loops = [model.run(embedded, lengths, weights, cache, seen=seen, reach=reach)]
    for _ in range(model.config.loops - 1):
        again = model.inject(embedded, loops[-1].hidden)
        loops.append(model.run(again, lengths, weights, cache, seen=seen, reach=reach))
    return loops
