"""GSM worded: sentences say how many each thing holds; asked is a number that follows from them.

After the word problems of iGSM (Ye et al., arXiv 2407.20311) and GSM-Infinite (Zhou et al., arXiv
2502.05252), in words of our own. The graph behind a problem is in `worded_graph`, how it is drawn
in `worded_drawing`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from random import Random
from typing import ClassVar, Literal, get_args

import numpy as np

from ..errors import InputError, nearest
from .drawing import draw_difficulties, draw_in_part
from .task import IntArray, Part, TaskBatch, TaskSpace, check_switch, check_whole
from .texts import closed_up, text_batch
from .worded_drawing import MOST_OPERANDS, add_distractors, draw_graph
from .worded_graph import Graph, Parameter, Rule, Sizes, hidden_constant, template

# What a layer is called as a whole, then its entities.
NAMES = (
    "place harbor market farm school castle station garden museum hotel mine",
    "container crate basket jar sack barrel trunk chest cart drawer bucket",
    "good plum doll clock boot drum kite lamp book flute mask",
    "part pin knob spring bell ribbon screw bead label lace tag",
)
_LAYERS = tuple(tuple(line.split()) for line in NAMES)
_SAYING = (".", "per", "are", "plus", "minus", "times", "unknown", "reach", "how many", "?")
_LONGEST = 4 + 4 * MOST_OPERANDS  # of a sentence: "plums per crate are", operands and their "plus"
_ASKED = 6  # tokens of a question with its answer
_ATTEMPTS = 2000
_LARGEST = 9999  # value: each number is a token

Mode = Literal["forward", "reverse"]


@dataclass(frozen=True)
class GsmWorded:
    """Work out how many of a thing another holds; the difficulty is the operations, min_op..max_op.

    There are `layers` layers of `entities` each: places hold containers, those hold goods, those
    hold parts. A parameter is "plums per crate", how many plums are in each crate, or an implicit
    total, "goods per harbor", over all that a harbor is said to hold. Only the former have
    sentences: "plums per crate are 3." (1..largest_constant), or "are" 2 or 3 parameters joined by
    "plus", one "plus 2", two joined by "minus", or "2 times" one. Totals have to be found from
    what all other sentences are about. Operations are counted as edges, from each needed parameter
    to all that it directly follows from: a sum of two has 2; a total has 1 for each child, or 2 if
    it is of a layer further down, as each child's number is then multiplied by its own total.

    There are `length` sentences, shuffled, or if `ordered` after all that they follow from. Those
    beyond the needed are about distractors, which follow from any parameter, also (`unsolvable`)
    from some without a value. All values are 0..largest, or with `modulus` above 0 taken modulo it,
    0..modulus - 1. The sentences are spread evenly over `windows` windows, the first of them one
    sentence longer where they do not divide. The last window is "how many plums per crate ? 7";
    7 is scored. `further` parameters are asked behind it in the same way, others that have a value,
    which say more of what there is to learn; their answers are easier and may follow from it, so
    what is measured is the first. With mode "reverse", one needed constant is "unknown", a sentence
    says what value the parameter that needs all others does "reach", and the constant is asked: the
    only one of 0..largest (or 0..modulus - 1) that leads there.

    A token is an index of `words`, and so is a target: 1 + a number, as numbers come first. Each
    number is one token: the sentences show few of them, and an answer is right or wrong as a whole.
    In which part a sample is depends on the arithmetic of the parameter that needs all others,
    constants included; names, distractors and the mode do not count. Raises InputError for bad
    parameters, and when drawing, if `largest` is too small for the difficulty.
    """

    name: ClassVar[str] = "gsm_worded"
    min_op: int = 2
    max_op: int = 8
    length: int = 16
    windows: int = 1
    layers: int = 3
    entities: int = 4
    largest_constant: int = 4
    largest: int = 1000
    modulus: int = 0
    mode: Mode = "forward"
    ordered: bool = False
    unsolvable: bool = True
    further: int = 0

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            hint = nearest(str(self.mode), get_args(Mode))
            raise InputError(
                f"gsm_worded: mode={self.mode!r}: expected 'forward' or 'reverse'{hint}"
            )
        check_switch("gsm_worded", "ordered", self.ordered)
        check_switch("gsm_worded", "unsolvable", self.unsolvable)
        check_whole("gsm_worded", "layers", self.layers, 2, len(_LAYERS))
        check_whole("gsm_worded", "entities", self.entities, 2, len(_LAYERS[0]) - 1)
        pairs = (self.layers - 1) * self.entities**2
        check_whole("gsm_worded", "length", self.length, 2 + self._given, pairs + self._given)
        check_whole("gsm_worded", "max_op", self.max_op, 1, self.length - 1 - self._given)
        check_whole("gsm_worded", "min_op", self.min_op, 1, self.max_op)
        check_whole("gsm_worded", "windows", self.windows, 1, self.length)
        check_whole("gsm_worded", "further", self.further, 0, self.length - 1)
        check_whole("gsm_worded", "largest", self.largest, 4, _LARGEST)
        if self.modulus != 0:
            check_whole("gsm_worded", "modulus", self.modulus, 3, _LARGEST + 1)
        check_whole("gsm_worded", "largest_constant", self.largest_constant, 2, self._top)

    @property
    def _given(self) -> int:
        """How many sentences say what something reaches."""
        return int(self.mode == "reverse")

    @property
    def _top(self) -> int:
        """The largest value."""
        return self.modulus - 1 if self.modulus else self.largest

    @cached_property
    def words(self) -> tuple[str, ...]:
        """The word of each token: blank, numbers, those of sentences, entities, layers below."""
        entities = [name for _, *names in self._layers for name in names[: self.entities]]
        numbers = map(str, range(self._top + 1))
        return ("", *numbers, *_SAYING, *entities, *(names[0] for names in self._layers[1:]))

    @property
    def _layers(self) -> tuple[tuple[str, ...], ...]:
        return _LAYERS[: self.layers]

    @cached_property
    def space(self) -> TaskSpace:
        """The sizes of all that `sample` returns."""
        return TaskSpace(
            fields=(len(self.words),),
            answers=self._top + 2,
            window=max(-(-self.length // self.windows) * _LONGEST, _ASKED * (1 + self.further)),
            windows=self.windows + 1,
            difficulties=tuple(range(self.min_op, self.max_op + 1)),
            questions="text",
        )

    def sample(
        self,
        random: np.random.Generator,
        count: int,
        *,
        part: Part,
        weights: Mapping[int, float] | None = None,
        difficulty: int | None = None,
    ) -> TaskBatch:
        """Draw `count` samples; see `Task.sample`."""
        op = draw_difficulties(random, count, self.space.difficulties, weights, difficulty)
        drawn: list[tuple[Graph, Parameter]] = []

        def draw(random: np.random.Generator, op: IntArray) -> tuple[IntArray, ...]:
            one = Random(int(random.integers(2**63)))  # for single draws faster than NumPy's
            found = [self._problem(one, each) for each in op.tolist()]
            place = len(drawn) + np.arange(len(found))
            drawn.extend(found)
            return np.array([[template(graph)] for graph, _ in found]), place

        _, chosen = draw_in_part(random, part, op, draw, eager=False)
        sentences = np.zeros((count, self.length, _LONGEST), np.int64)
        asked = np.zeros((count, 1 + self.further, _ASKED), np.int64)
        lot = Random(int(random.integers(2**63)) if self.further else 0)
        for row, place in enumerate(chosen.tolist()):
            graph, unknown = drawn[place]
            add_distractors(graph, self.unsolvable)
            for number, sentence in enumerate(self._sentences(graph, unknown)):
                sentences[row, number, : len(sentence)] = sentence
            others = [parameter for parameter in graph.values if parameter != unknown]
            more = lot.sample(others, min(self.further, len(others)))
            for number, parameter in enumerate((unknown, *more)):
                asked[row, number] = self._question(parameter, graph.values[parameter])
        windows = [
            closed_up(group.reshape(count, -1))
            for group in np.array_split(sentences, self.windows, axis=1)
        ]
        answered = np.broadcast_to(np.arange(_ASKED) == _ASKED - 1, asked.shape)
        flat = (count, (1 + self.further) * _ASKED)
        return text_batch(windows, asked.reshape(flat), answered.reshape(flat), op)

    def readable(self, tokens: IntArray) -> str:
        """Return tokens `[L]` as text, as "plums per crate are 3."; blanks are left out."""
        said, per = "", False
        for token in tokens.tolist():
            word = self.words[token] + ("s" if token >= self._names and not per else "")
            per = word == "per"
            said += ("" if word in ("", ".", "?") else " ") + word
        return said.strip()

    def _problem(self, random: Random, op: int) -> tuple[Graph, Parameter]:
        """A graph without distractors, and of which parameter the value is asked."""
        sizes = Sizes(
            self.layers, self.entities, self.length - self._given, self.largest_constant,
            self._top, self.modulus,
        )  # fmt: skip
        for _ in range(_ATTEMPTS):
            graph = draw_graph(sizes, random, op)
            if graph is not None:
                reverse = self.mode == "reverse"
                asked = hidden_constant(graph) if reverse else graph.target
                if asked is not None:
                    return graph, asked
        raise InputError(
            f"gsm_worded: largest={self.largest}: {_ATTEMPTS} problems of difficulty {op} all had "
            "larger values, or no constant to ask for; make it larger, or set modulus"
        )

    def _sentences(self, graph: Graph, unknown: Parameter) -> list[list[int]]:
        """The sentences of a graph as tokens, in the order in which they are read."""
        word, random = self._word, graph.random.random
        when: dict[Parameter, float] = {}  # later than all that it follows from
        said: list[tuple[float, list[int]]] = []
        for parameter, rule in graph.rules.items():
            when[parameter] = random()
            if self.ordered and rule.operands:
                when[parameter] += max(when.get(operand, 0.0) for operand in rule.operands)
            if parameter.held >= 0:
                hide = self._given and parameter == unknown
                right = [word["unknown"]] if hide else self._right_side(rule)
                sentence = [*self._phrase(parameter), word["are"], *right, word["."]]
                said.append((when[parameter], sentence))
        if self._given:
            value = 1 + graph.values[graph.target]
            given = [*self._phrase(graph.target), word["reach"], value, word["."]]
            said.append((self.ordered * when[graph.target] + random(), given))
        return [sentence for _, sentence in sorted(said)]

    def _right_side(self, rule: Rule) -> list[int]:
        """What a parameter is said to be; numbers are tokens 1 + number."""
        if rule.form == "multiple":
            return [1 + rule.constant, self._word["times"], *self._phrase(rule.operands[0])]
        joint = self._word["minus" if rule.form == "difference" else "plus"]
        tokens: list[int] = []
        for operand in rule.operands:
            tokens += (joint, *self._phrase(operand))
        if rule.constant:
            tokens += (joint, 1 + rule.constant)
        return tokens[1:]

    def _question(self, parameter: Parameter, value: int) -> tuple[int, ...]:
        """How many there are of a parameter, and the answer, as tokens."""
        word = self._word
        return word["how many"], *self._phrase(parameter), word["?"], 1 + value

    def _phrase(self, parameter: Parameter) -> tuple[int, int, int]:
        """A parameter as three tokens."""
        # the words of layers, from layer 1 on, follow those of all entities
        held = parameter.held if parameter.held >= 0 else self._entities - 1 - parameter.held
        return self._names + held, self._word["per"], self._names + parameter.holder

    @property
    def _entities(self) -> int:
        return self.layers * self.entities

    @cached_property
    def _names(self) -> int:
        """The token of the first entity."""
        return self._top + 2 + len(_SAYING)

    @cached_property
    def _word(self) -> dict[str, int]:
        """The tokens of the words that sentences are made with."""
        return {word: self._top + 2 + number for number, word in enumerate(_SAYING)}
