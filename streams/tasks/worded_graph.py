"""Dependency graphs of word problems: how many each entity holds, and from what that follows.

How they are drawn is in `worded_drawing`, how they are put into words in `gsm_worded`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Literal, NamedTuple

import numpy as np

Form = Literal["sum", "difference", "multiple", "total", "nested"]


class Parameter(NamedTuple):
    """How many `held` each `holder` has, both entities; `held` = -j: all entities of layer j."""

    holder: int
    held: int


class Rule(NamedTuple):
    """What a parameter is.

    "sum": of operands and `constant`; "difference": of two operands; "multiple": `constant` times
    one; "total": the sum of what is held; "nested": the sum of products, operands in pairs of how
    many of an entity are held and how many each of it holds.
    """

    form: Form
    constant: int
    operands: tuple[Parameter, ...] = ()


@dataclass(frozen=True)
class Sizes:
    """What bounds a graph.

    Entity e is in layer e // entities; each may hold entities of the next layer. `stated`
    parameters get a sentence, constants are 1..constant, values 0..top, modulo `modulus` if it is
    above 0.
    """

    layers: int
    entities: int
    stated: int
    constant: int
    top: int
    modulus: int


class Graph:
    """A problem, in the making or made.

    `rules` are in an order in which each follows from those before it; `values` lacks what cannot
    be known; `target` needs all others, but for distractors. `held` lists what each entity is said
    to hold, and is complete for the `closed` ones, those that a total is taken of.
    """

    def __init__(self, sizes: Sizes, random: Random) -> None:
        self.sizes, self.random = sizes, random
        self.rules: dict[Parameter, Rule] = {}
        self.values: dict[Parameter, int] = {}
        self.target = Parameter(0, 0)
        self.held: list[list[int]] = [[] for _ in range((sizes.layers - 1) * sizes.entities)]
        self.closed: set[int] = set()

    def below(self, holder: int) -> range:
        """Return the entities that a holder may hold."""
        many = self.sizes.entities
        start = (holder // many + 1) * many
        return range(start, start + many)

    def add(self) -> Parameter:
        """Let some holder that is not closed hold one more; `spare` says whether one can."""
        while True:
            holder = int(self.random.random() * len(self.held))
            held = pick(self.random, self.below(holder))
            if holder not in self.closed and held not in self.held[holder]:
                self.held[holder].append(held)
                return Parameter(holder, held)

    def spare(self, closing: Mapping[int, int]) -> int:
        """Return how many could be added, once those `closing` hold as many as it says."""
        spare = 0
        for holder, held in enumerate(self.held):
            if holder in closing:
                spare += closing[holder] - len(held)
            elif holder not in self.closed:
                spare += self.sizes.entities - len(held)
        return spare

    def settle(self, parameter: Parameter, operands: Sequence[Parameter]) -> bool:
        """Give a parameter a rule of these operands that stays within bounds; tell if there is one.

        Where an operand has no value, every rule will do, and the parameter gets none.
        """
        known = all(operand in self.values for operand in operands)
        for rule in self._rules(parameter, tuple(operands), known):
            if known:
                value = computed(rule, self.values, self.sizes.modulus)
                if not 0 <= value <= self.sizes.top:
                    continue
                self.values[parameter] = value
            self.rules[parameter] = rule
            return True
        return False

    def _rules(
        self, parameter: Parameter, operands: tuple[Parameter, ...], known: bool
    ) -> list[Rule]:
        """The rules that might give this parameter, the one to prefer first."""
        if parameter.held < 0:
            steps = -parameter.held - parameter.holder // self.sizes.entities
            return [Rule("total" if steps == 1 else "nested", 0, operands)]
        most = self.sizes.constant
        if not operands:
            return [Rule("sum", self.random.randint(1, most))]
        if len(operands) > 2:
            return [Rule("sum", 0, operands)]
        if len(operands) == 1:
            found = [
                Rule("sum", self.random.randint(1, most), operands),
                Rule("multiple", self.random.randint(2, most), operands),
            ]
        else:
            first, second = operands
            if known and not self.sizes.modulus and self.values[first] < self.values[second]:
                first, second = second, first
            found = [Rule("sum", 0, operands), Rule("difference", 0, (first, second))]
        return found if self.random.random() < 0.5 else found[::-1]


def pick(random: Random, items: Sequence[Any]) -> Any:
    """Return one of the items; several times as fast as `random.choice`."""
    return items[int(random.random() * len(items))]


def computed(rule: Rule, values: Mapping[Parameter, Any], modulus: int) -> Any:
    """Return what a rule comes to, given its operands' values: integers, or arrays of one shape."""
    numbers = [values[operand] for operand in rule.operands]
    if rule.form == "difference":
        found = numbers[0] - numbers[1]
    elif rule.form == "multiple":
        found = rule.constant * numbers[0]
    elif rule.form == "nested":
        found = sum(many * each for many, each in zip(numbers[::2], numbers[1::2], strict=True))
    else:
        found = sum(numbers, start=rule.constant)
    return found % modulus if modulus else found


def hidden_constant(graph: Graph) -> Parameter | None:
    """Return a needed constant that the target's value alone gives away; None if there is none.

    No other number 0..top in its place gives the target the same value, whether or not what lies
    between would stay within bounds. For graphs without distractors.
    """
    constants = [parameter for parameter, rule in graph.rules.items() if not rule.operands]
    graph.random.shuffle(constants)
    for tried in constants:
        values: dict[Parameter, Any] = {}
        for parameter, rule in graph.rules.items():
            # products that wrap around could only hide a constant that is in fact given away
            values[parameter] = (
                np.arange(graph.sizes.top + 1)
                if parameter == tried
                else computed(rule, values, graph.sizes.modulus)
            )
        if (values[graph.target] == graph.values[graph.target]).sum() == 1:
            return tried
    return None


def template(graph: Graph) -> int:
    """Return a number below 2**62 of the arithmetic that gives the target, whatever the names.

    Constants count, the order of what is added does not; nor does whether two equal parts are one.
    For graphs without distractors.
    """
    digests: dict[Parameter, bytes] = {}
    for parameter, rule in graph.rules.items():
        parts = [digests[operand] for operand in rule.operands]
        if rule.form == "nested":
            parts = [a + b for a, b in zip(parts[::2], parts[1::2], strict=True)]
        if rule.form != "difference":
            parts.sort()
        said = f"{rule.form} {rule.constant} ".encode() + b"".join(parts)
        digests[parameter] = hashlib.blake2b(said, digest_size=8).digest()
    return int.from_bytes(digests[graph.target], "big") >> 2
