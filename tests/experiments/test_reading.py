"""The demo's sentences follow from the figures, also where those are disappointing."""

from __future__ import annotations

from dataclasses import replace

from adaptive_sleep.experiments.reading import Row, read_rows

STILL = Row(
    name="fixed-1", policy="fixed(1)", control_of="", runs=("fixed-1",), losses=(1.0,),
    constant=True, mean_passes=1.0, flops_per_event=100.0, sleep_flops_per_event=0.0, seconds=1.0,
)  # fmt: skip
LONG = replace(
    STILL, name="fixed-4", policy="fixed(4)", losses=(0.9,), mean_passes=4.0, flops_per_event=400.0
)
RULE = replace(
    STILL, name="rule", policy="rule()", losses=(0.92,), constant=False, mean_passes=2.0,
    flops_per_event=200.0,
)  # fmt: skip
SHUFFLED = replace(RULE, name="rule-shuffled", control_of="rule", losses=(0.95, 0.97))


def test_longer_sleep_that_helps() -> None:
    said = read_rows([STILL, LONG])[0]
    assert said.startswith("Sleeping longer helps here")
    assert "10.00%" in said
    assert "4.00" in said


def test_longer_sleep_that_does_not_help() -> None:
    for loss in (1.0, 1.0005, 1.2):
        said = read_rows([STILL, replace(LONG, losses=(loss,))])[0]
        assert said.startswith("Sleeping longer does not help here")


def test_a_policy_that_never_decides_is_called_what_it_is() -> None:
    rule = replace(LONG, name="rule", policy="rule()")
    said = read_rows([STILL, LONG, rule])
    assert said[1] == "rule() made 4 pass(es) at every window, so here it is the same as fixed(4)."


def test_a_policy_that_knows_when_to_sleep() -> None:
    said = read_rows([STILL, LONG, RULE, SHUFFLED])[1]
    assert "8.00% better than fixed(1)" in said
    assert "4.17% better than the same passes shuffled" in said  # against the mean of both seeds
    assert "so here it mattered when it slept" in said
    # fixed(1) and fixed(4) mixed for 200 FLOPs an event: 1 - 0.1 / 3
    assert "4.83% better than a mixture" in said


def test_a_policy_that_is_no_better_than_its_control() -> None:
    for loss in (0.92, 0.9195, 0.8):
        said = read_rows([STILL, LONG, RULE, replace(SHUFFLED, losses=(loss,))])[1]
        assert "nothing shows that it knows when to sleep" in said


def test_no_mixture_is_named_outside_the_costs_of_the_fixed_runs() -> None:
    dear = replace(RULE, flops_per_event=900.0)
    assert "mixture" not in read_rows([STILL, LONG, dear, SHUFFLED])[1]


def test_the_mixture_lies_on_the_lower_hull() -> None:
    middle = replace(
        LONG, name="fixed-2", policy="fixed(2)", losses=(2.0,), mean_passes=2.0,
        flops_per_event=200.0,
    )  # fmt: skip
    with_bad = read_rows([STILL, middle, LONG, RULE, SHUFFLED])[2]
    assert "4.83% better than a mixture" in with_bad  # a bad fixed(2) does not lower the bar


def test_the_reader_is_told_that_there_is_no_interval() -> None:
    assert "no interval" in read_rows([STILL, LONG])[-1]
