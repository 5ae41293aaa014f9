"""How graphs of word problems are drawn: what is needed first, then distractors.

What is needed is drawn from the question backwards, so that all of it is, and the size exact.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

from .worded_graph import Graph, Parameter, Sizes, pick

MOST_OPERANDS = 3
_OPERANDS = (0, 1, 1, 2, 2, MOST_OPERANDS)  # drawn from, as far as the operations left allow
_SHARED = 0.3  # of the operands, those that are needed elsewhere too, where there are such
_TOTALS = 0.4  # of the other operands, those that are totals, where one fits
_UNSTATED = 0.1  # of the operands of distractors, those that nothing is said of

Operands = tuple[Parameter, ...]


@dataclass
class _Needs:
    """What is needed: the `operands` of some, the others `opened`; how many operands are `left`."""

    left: int
    operands: dict[Parameter, Operands] = field(default_factory=dict)
    opened: list[Parameter] = field(default_factory=list)


def draw_graph(sizes: Sizes, random: Random, op: int) -> Graph | None:
    """Return a graph whose needed parameters have `op` operands in all; None if out of bounds.

    `sizes.stated` must be above `op`, and at most the pairs of entities of neighbouring layers.
    """
    graph, needs, backwards = Graph(sizes, random), _Needs(op), []
    graph.target = _fresh(graph, needs)
    while needs.opened:
        # the parts of a total wait for it, so that nothing they follow from leads back to it
        blocked = {part for p in needs.opened if p.held < 0 for part in needs.operands[p]}
        parameter: Parameter = pick(random, [p for p in needs.opened if p not in blocked])
        needs.opened.remove(parameter)
        backwards.append(parameter)
        if parameter.held >= 0:
            needs.operands[parameter] = _needed(graph, needs)
    settled = all(graph.settle(p, needs.operands[p]) for p in reversed(backwards))
    return graph if settled else None


def _needed(graph: Graph, needs: _Needs) -> Operands:
    """Operands of a parameter that is not opened any more, none if it is to be a constant."""
    last = not any(p.held >= 0 for p in needs.opened)  # that can take the operands left
    least = 1 if last and needs.left else 0
    count: int = pick(graph.random, [n for n in _OPERANDS if least <= n <= needs.left])
    needs.left -= count
    chosen: list[Parameter] = []
    for _ in range(count):
        others = [p for p in needs.opened if p not in chosen]
        share = others and graph.random.random() < _SHARED
        chosen.append(pick(graph.random, others) if share else _fresh(graph, needs))
    return tuple(chosen)


def _fresh(graph: Graph, needs: _Needs) -> Parameter:
    """A parameter that was not needed yet: opened, with all that it is made of if a total."""
    if graph.random.random() < _TOTALS:
        holder = graph.random.randrange(len(graph.held))
        layer = graph.random.randint(holder // graph.sizes.entities + 1, graph.sizes.layers - 1)
        plan = _plan(graph, Parameter(holder, -layer), needs.left, needs.opened)
        holds = {
            total.holder: [part.held for part in parts if part.held >= 0]
            for total, parts in plan.items()
        }
        unsaid = graph.sizes.stated - sum(map(len, graph.held))
        if plan and graph.spare({h: len(held) for h, held in holds.items()}) >= unsaid:
            needs.left -= sum(map(len, plan.values()))
            needs.operands |= plan
            graph.closed |= set(holds)
            for total, parts in plan.items():
                graph.held[total.holder] = holds[total.holder]
                needs.opened.extend(p for p in (total, *parts) if p not in needs.opened)
            return Parameter(holder, -layer)
    parameter = graph.add()
    needs.opened.append(parameter)
    return parameter


def _plan(
    graph: Graph, total: Parameter, budget: int, opened: Sequence[Parameter]
) -> Mapping[Parameter, Operands]:
    """The operands of a total, and of the totals it is made of, `budget` at most; {} if none.

    What its holder has already must be `opened`: what follows from others may follow from this.
    """
    holder, layer = total.holder, -total.held
    known = graph.held[holder]
    steps = layer - holder // graph.sizes.entities
    most = min(budget // (2 * steps - 1), graph.sizes.entities, MOST_OPERANDS)
    least = max(len(known), min(2, most), 1)
    if holder in graph.closed or least > most:
        return {}
    if not all(Parameter(holder, held) in opened for held in known):
        return {}
    fresh = [entity for entity in graph.below(holder) if entity not in known]
    more = graph.random.randint(least, most) - len(known)
    children = known + graph.random.sample(fresh, more)
    if steps == 1:
        return {total: tuple(Parameter(holder, child) for child in children)}
    pairs = [p for c in children for p in (Parameter(holder, c), Parameter(c, -layer))]
    plan = {total: tuple(pairs)}
    left = budget - len(pairs)
    for number, child in enumerate(children, 1):
        kept = (len(children) - number) * (2 * steps - 3)  # the least that the others take
        below = _plan(graph, Parameter(child, -layer), left - kept, opened)
        if not below:
            return {}
        plan |= below
        left -= sum(map(len, below.values()))
    return plan


def add_distractors(graph: Graph, unsolvable: bool) -> None:
    """State more parameters, until as many are as should be; none of them is needed.

    They follow from needed ones and from one another; where `unsolvable`, some also from
    parameters that nothing is said of.
    """
    random = graph.random
    stated = sum(parameter.held >= 0 for parameter in graph.rules)
    for unsaid in reversed(range(graph.sizes.stated - stated)):
        parameter = graph.add()
        operands: list[Parameter] = []
        for _ in range(pick(random, _OPERANDS)):
            kind, found = random.random(), None
            if kind < _UNSTATED and unsolvable and graph.spare({}) > unsaid:
                found = graph.add()
            elif kind > 1 - _TOTALS:
                found = _another_total(graph, parameter.holder, unsaid)
            found = found or pick(random, list(graph.rules))
            if found not in operands:
                operands.append(found)
        if not graph.settle(parameter, operands):
            graph.settle(parameter, ())


def _another_total(graph: Graph, but: int, unsaid: int) -> Parameter | None:
    """A total that nothing asked for yet, of another holder than `but`, if there can be one."""
    holder = graph.random.randrange(len(graph.held))
    held = graph.held[holder]
    if holder == but or holder in graph.closed or not held:
        return None
    total = Parameter(holder, -(holder // graph.sizes.entities + 1))
    if graph.spare({holder: len(held)}) < unsaid:
        return None
    if not graph.settle(total, [Parameter(holder, each) for each in held]):
        return None
    graph.closed.add(holder)
    return total
