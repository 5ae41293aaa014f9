"""Texts close up, are cut where they should be, and name their answers, as lists would."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.streams.tasks.depo import Depo
from adaptive_sleep.streams.tasks.texts import closed_up, cut, even_stops, text_batch


def test_texts_close_up_and_are_cut_evenly():
    random = np.random.default_rng(0)
    padded = random.integers(1, 9, size=(60, 30)) * (random.random((60, 30)) < 0.6)
    texts, lengths = closed_up(padded)
    windows = cut(texts, even_stops(lengths, 4))
    for row, blanks in enumerate(padded.tolist()):
        text = [token for token in blanks if token]
        assert lengths[row] == len(text)
        assert texts[row].tolist() == text + [0] * (texts.shape[1] - len(text))
        pieces = [tokens[row, : held[row]].tolist() for tokens, held in windows]
        assert [token for piece in pieces for token in piece] == text
        sizes = [len(piece) for piece in pieces]
        assert sizes == sorted(sizes, reverse=True)
        assert sizes[0] - sizes[-1] <= 1
        assert not any(tokens[row, held[row] :].any() for tokens, held in windows)


def test_an_answer_is_asked_at_the_token_before_it():
    questions = np.array([[5, 0, 6, 7, 0, 8], [5, 6, 0, 0, 0, 0]])
    answered = np.array([[0, 1, 0, 1, 1, 1], [0, 1, 1, 1, 1, 1]], np.bool_)
    read = np.array([[1, 2], [1, 0]]), np.array([2, 1])
    batch = text_batch([read], questions, answered, np.array([1, 2]))
    assert batch.tokens[1].tolist() == [[5, 6, 7, 8], [5, 6, 0, 0]]
    assert batch.targets[1].tolist() == [[-1, 7, 8, -1], [6, -1, -1, -1]]
    assert batch.targets[0].tolist() == [[-1, -1], [-1, -1]]
    assert [held.tolist() for held in batch.lengths] == [[2, 1], [4, 2]]
    assert batch.diagonal == (False, False)


def test_depo_rungs_ask_for_fewer_words_on():
    task = Depo(max_nodes=7, max_hops=5, max_length=1, word_tokens=20, rungs=[1, 3])
    batch = task.sample(np.random.default_rng(4), 20, part="train")
    plain = replace(task, rungs=()).sample(np.random.default_rng(4), 20, part="train")
    assert plain.rungs == ()
    for one, other in zip(batch.tokens, plain.tokens, strict=True):
        assert (one == other).all()
    for row in range(20):
        windows = [x[row, : n[row]] for x, n in zip(batch.tokens, batch.lengths, strict=True)]
        text = task.space.unpack(np.concatenate(windows[:-1]))[0][1:]
        successor = dict(zip(text[::2].tolist(), text[1::2].tolist(), strict=True))
        asked = windows[-1].reshape(-1, 4)  # 9000 + k, start, 9500, answer
        for level, rung in zip([1, 3], batch.rungs, strict=True):
            wanted = []
            for _, start, _, _ in asked.tolist():
                node = start
                for _ in range(min(level, int(batch.difficulty[row]))):
                    node = successor[node]
                wanted += [-1, -1, node, -1]
            assert rung[row, : len(wanted)].tolist() == wanted
            assert (rung[row, len(wanted) :] == -1).all()


def test_depo_rungs_are_for_words_of_one_token():
    with pytest.raises(InputError, match="rungs are for words of one token"):
        Depo(rungs=[1, 2])
