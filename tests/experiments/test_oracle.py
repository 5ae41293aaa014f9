"""Oracle, regret and the value of a pass, on tables small enough to work out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

from adaptive_sleep.experiments.oracle import oracle, regret, value
from adaptive_sleep.streams.errors import InputError

FLOPS = 100


def made(
    losses: list[list[float]],
    right: list[list[int]] | None = None,
    halves: dict[str, list[list[Any]]] | None = None,
) -> pl.DataFrame:
    """A table of stream "a", a row of `losses` for each window; 10 predictions each."""
    most = len(losses[0])
    cells = [(w, n) for w in range(len(losses)) for n in range(most)]
    table = pl.DataFrame(
        {
            "stream": ["a"] * len(cells),
            "window": [w for w, _ in cells],
            "passes": [n + 1 for _, n in cells],
            "loss": [losses[w][n] for w, n in cells],
            "scored": [10] * len(cells),
            "right": [None if right is None else right[w][n] for w, n in cells],
            "sleep_flops": [n * FLOPS for _, n in cells],
        },
        schema_overrides={"right": pl.Int64},
    )
    for name, rows in (halves or {}).items():
        table = table.with_columns(pl.Series(name, [rows[w][n] for w, n in cells]))
    return table


PLAIN = made([[3.0, 1.0, 0.98, 0.95], [0.5, 0.7, 0.6, 0.9], [1.0, 1.0, 1.0, 1.0]])


def passes(table: pl.DataFrame, **given: Any) -> list[int]:
    return oracle(table, **given).passes["passes"].to_list()


def test_the_oracle_takes_the_least_passes_within_the_tolerance() -> None:
    assert passes(PLAIN, tolerance=0.0) == [4, 1, 1]
    assert passes(PLAIN, tolerance=0.04) == [3, 1, 1]
    assert passes(PLAIN, tolerance=0.06) == [2, 1, 1]
    assert passes(PLAIN, tolerance=5.0) == [1, 1, 1]
    best = oracle(PLAIN.sample(fraction=1.0, shuffle=True, seed=0), tolerance=0.06)
    assert best.passes["loss_after"].to_list() == [1.0, 0.5, 1.0]
    assert best.passes["sleep_flops"].to_list() == [FLOPS, 0, 0]
    assert best.passes["right_after"].null_count() == 3
    assert (best.mean_passes, best.loss, best.optimistic) == (4 / 3, 2.5 / 3, True)


def test_a_price_buys_only_passes_that_are_worth_it() -> None:
    assert passes(PLAIN, tolerance=0.0, price=0.01 / FLOPS) == [4, 1, 1]
    assert passes(PLAIN, tolerance=0.0, price=0.04 / FLOPS) == [2, 1, 1]
    assert passes(PLAIN, tolerance=0.0, price=2.5 / FLOPS) == [1, 1, 1]


def test_passes_that_answer_all_right_come_first() -> None:
    losses = [[0.1, 0.5, 0.4, 0.3], [0.9, 0.2, 0.1, 0.3], [0.9, 0.8, 0.1, 0.05]]
    right = [[9, 9, 10, 10], [0, 9, 9, 8], [0, 10, 10, 10]]
    table = made(losses, right)
    # window 0: 3 and 4 though 1 has the least loss; window 1: none, so the loss decides
    assert passes(table, tolerance=0.0) == [4, 3, 4]
    assert passes(table, tolerance=0.1) == [3, 2, 3]
    assert passes(table, tolerance=9.0) == [3, 1, 2]
    # at a price the loss alone decides
    assert passes(table, tolerance=0.0, price=1e-9) == [1, 3, 4]


def test_half_the_questions_choose_and_the_other_half_is_scored() -> None:
    scored = [[5, 5, 5]] * 2 + [[1, 1, 1]]
    halves: dict[str, list[list[Any]]] = {
        "loss_a": [[0.1, 0.5, 0.9], [0.6, 0.2, 0.2], [0.1, 0.1, 0.1]],
        "loss_b": [[0.8, 0.3, 0.1], [0.5, 0.4, 0.3], [None, None, None]],
        "scored_a": scored,
        "scored_b": [*scored[:2], [0, 0, 0]],
        "right_a": [[5, 5, 4], [4, 5, 5], [1, 1, 1]],
        "right_b": [[3, 5, 5], [5, 5, 5], [0, 0, 0]],
    }
    table = made([[0.45, 0.4, 0.5], [0.55, 0.3, 0.25], [0.1] * 3], [[8, 10, 9]] * 3, halves)
    best = oracle(table, tolerance=0.0, halves=True)
    assert best.passes["passes"].to_list() == [1, 2]
    assert best.passes["loss_after"].to_list() == [0.8, 0.4]
    assert best.passes["right_after"].to_list() == [3, 5]
    assert (best.optimistic, best.left_out) == (False, 1)
    trace = pl.DataFrame({"stream": ["a"] * 3, "window": [0, 1, 2], "passes": [3, 3, 3]})
    lost = regret(table, trace, tolerance=0.0, halves=True)
    # On the half that chose nothing, the run may do better than the oracle.
    assert lost.loss == pytest.approx(((0.1 - 0.8) + (0.3 - 0.4)) / 2)
    assert lost.all_right == pytest.approx(0.5 - 1.0)
    assert (lost.windows, lost.left_out, lost.optimistic) == (2, 1, False)


def test_regret_is_what_the_run_lost_and_overspent() -> None:
    trace = pl.DataFrame({"stream": ["a"] * 4, "window": [2, 1, 0, 7], "passes": [4, 2, 1, 8]})
    lost = regret(PLAIN, trace, tolerance=0.06, price=0.0)
    assert lost.loss == pytest.approx((3.0 - 1.0 + 0.7 - 0.5 + 0.0) / 3)
    assert lost.extra_passes == pytest.approx((-1 + 1 + 3) / 3)
    assert lost.extra_flops == pytest.approx(FLOPS)
    assert lost.cost == lost.loss
    assert (lost.windows, lost.all_right, lost.optimistic) == (3, None, True)
    priced = regret(PLAIN, trace, tolerance=0.0, price=0.04 / FLOPS)
    assert priced.cost == pytest.approx(priced.loss + 0.04 * priced.extra_passes)
    assert regret(PLAIN, oracle(PLAIN).passes).cost == 0.0


def test_regret_at_a_price_is_never_below_0_without_halves() -> None:
    random = np.random.default_rng(0)
    table = made(random.random((20, 4)).tolist())
    for _ in range(20):
        chosen = random.integers(1, 5, 20)
        trace = pl.DataFrame({"stream": ["a"] * 20, "window": range(20), "passes": chosen})
        assert regret(table, trace, tolerance=0.0, price=0.1 / FLOPS).cost >= 0.0


def test_the_value_of_going_on_is_what_the_best_later_pass_saves() -> None:
    worth = value(PLAIN).filter(pl.col("window") < 2)
    assert worth["passes"].to_list() == [1, 2, 3, 1, 2, 3]
    np.testing.assert_allclose(worth["value"], [2.05, 0.05, 0.03, -0.1, 0.1, -0.3])
    assert worth["at"].to_list() == [4, 4, 4, 3, 3, 4]
    assert worth["more_flops"].to_list() == [300, 200, 100, 200, 100, 100]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (PLAIN.drop("scored"), "no column scored"),
        (PLAIN[1:], "one row for each of 1 to 4 passes"),
        (pl.concat([PLAIN[1:], PLAIN[1:2]]), "one row for each of 1 to 4 passes"),
        (pl.concat([PLAIN[:3], PLAIN[7:]]), "one row for each of 1 to 4 passes"),
        (pl.concat([PLAIN[::4], PLAIN[::4]]), "one row for each of 1 to 1 passes"),
        (pl.concat([PLAIN, PLAIN]), "one row for each of 1 to 4 passes"),
        (PLAIN.with_columns(pl.lit(None, pl.Float64).alias("loss")), "loss is missing"),
    ],
)
def test_what_is_no_table_is_refused(table: pl.DataFrame, said: str) -> None:
    for ask in (oracle, value):
        with pytest.raises(InputError, match=said):
            ask(table)


def test_wrong_figures_and_traces_are_refused() -> None:
    for given in ({"tolerance": -1.0}, {"price": float("nan")}, {"price": float("inf")}):
        with pytest.raises(InputError, match=next(iter(given))):
            oracle(PLAIN, **given)
    trace = pl.DataFrame({"stream": ["a"] * 3, "window": [0, 1, 2], "passes": [1, 1, 1]})
    for wrong, said in (
        (trace.drop("passes"), "trace: no column passes"),
        (trace[:2], "nothing on stream 'a', window 2"),
        (trace.with_columns(passes=pl.lit(5)), "knows 1 to 4; make it with most=5"),
        (pl.concat([trace, trace]), "a window is there twice"),
    ):
        with pytest.raises(InputError, match=said):
            regret(PLAIN, wrong)
    with pytest.raises(InputError, match="no window to compare"):
        regret(PLAIN[:0], trace)


def test_an_empty_table_has_an_empty_oracle() -> None:
    assert len(oracle(PLAIN[:0]).passes) == 0
