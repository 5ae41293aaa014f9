"""The read-out finds what is linear in a state, on other examples, and nothing where nothing is."""

from __future__ import annotations

import numpy as np
import pytest

from adaptive_sleep.experiments.probes.readout import STRENGTHS, Cases, r_squared, read_out
from adaptive_sleep.streams.errors import InputError

WIDTH = 40


def _parts(train: int, noise: float = 0.0) -> list[Cases]:
    """Three parts whose answers 0 and 1 are linear in the states; 2 has nothing to do with them."""
    random = np.random.default_rng(0)
    weight, scales = random.normal(size=(WIDTH, 2)), 10.0 ** random.integers(-2, 3, WIDTH)
    parts = []
    for size in (train, 150, 400):
        states = random.normal(size=(size, WIDTH))
        known = states @ weight + np.array([3.0, -40.0])
        known += noise * np.sqrt(WIDTH) * random.normal(size=known.shape)
        answers = np.column_stack([known, random.normal(size=size)])
        parts.append(Cases(5.0 + scales * states, answers))
    return parts


def test_what_is_linear_in_the_state_is_found_and_nothing_else() -> None:
    found = read_out(*_parts(300))
    np.testing.assert_allclose(found.r2[:2], 1.0, atol=1e-4)
    assert -0.2 < found.r2[2] < 0.05
    assert found.strength[2] > found.strength[0] == min(STRENGTHS)  # nothing is shrunk to nothing


def test_noise_in_the_answers_bounds_what_is_found() -> None:
    found = read_out(*_parts(600, noise=1.0))
    assert np.all(
        (found.r2[:2] > 0.38) & (found.r2[:2] < 0.58)
    )  # of half the variance that is there


def test_states_wider_than_there_are_examples_are_read_too() -> None:
    narrow = read_out(*_parts(30))
    assert np.all((narrow.r2[:2] > 0.2) & (narrow.r2[:2] < 0.99))


@pytest.mark.parametrize("train", [30, 300])
def test_it_is_the_closed_form_of_ridge(train: int) -> None:
    parts = _parts(train, noise=0.5)
    found = read_out(*parts, strengths=(0.3,))
    centre, spread = parts[0].states.mean(0), parts[0].states.std(0)
    x, y = (parts[0].states - centre) / spread, parts[0].answers - parts[0].answers.mean(0)
    weight = np.linalg.solve(x.T @ x + 0.3 * train * np.eye(WIDTH), x.T @ y)
    wanted = (parts[2].states - centre) / spread @ weight + parts[0].answers.mean(0)
    np.testing.assert_allclose(found.r2, r_squared(wanted, parts[2].answers), atol=1e-9)


def test_columns_that_say_nothing_and_answers_that_do_not_vary() -> None:
    parts = _parts(300)
    flat = [
        Cases(np.column_stack([p.states, np.full(len(p.states), 7.0)]), p.answers * [1, 0, 1])
        for p in parts
    ]
    found = read_out(*flat)
    assert found.r2[0] == pytest.approx(read_out(*parts).r2[0], abs=1e-9)
    assert np.isnan(found.r2[1])


def test_r2_is_against_the_mean_of_what_is_tested() -> None:
    answers = np.array([[1.0], [2.0], [3.0]])
    assert r_squared(answers, answers)[0] == 1.0
    assert r_squared(np.full((3, 1), 2.0), answers)[0] == 0.0
    assert r_squared(np.full((3, 1), 5.0), answers)[0] < 0.0


def test_parts_must_fit() -> None:
    train, validation, test = _parts(50)
    with pytest.raises(InputError, match=r"validation: states of width 39, but those of train"):
        read_out(train, Cases(validation.states[:, 1:], validation.answers), test)
    with pytest.raises(InputError, match=r"test: answers of width 2"):
        read_out(train, validation, Cases(test.states, test.answers[:, 1:]))
    with pytest.raises(InputError, match="states: 400 rows, but answers has 399"):
        Cases(test.states, test.answers[1:])
