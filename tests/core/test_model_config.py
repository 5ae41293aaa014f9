"""Configurations are decoded strictly: what cannot be built is refused, with a repair."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import core_cases as cases
import pytest

import adaptive_sleep as asl
from adaptive_sleep.config import decode, read_toml

TOKENS: dict[str, Any] = {"kind": "tokens", "vocabulary": 9}
SERIES: dict[str, Any] = {"kind": "series", "channels": ["a", "b"]}


@pytest.mark.parametrize("kind", cases.KINDS)
def test_a_configuration_survives_being_written_down(kind: str) -> None:
    config = cases.tiny(kind)
    assert decode(asl.ModelConfig, asdict(config)) == config


def test_defaults() -> None:
    config = decode(asl.ModelConfig, SERIES | {"actions": ["u"], "patch": 3, "window": 10})
    assert config.inputs == ("a", "b", "u")
    assert config.window_positions == 4


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (TOKENS | {"widht": 3}, "unknown field 'widht', did you mean 'width'"),
        (TOKENS | {"width": "64"}, "width"),
        (TOKENS | {"width": 64.5}, "width"),
        (TOKENS | {"width": True}, "width"),
        (TOKENS | {"width": 0}, "width=0: must be at least 1"),
        (TOKENS | {"heads": 3}, "heads=3: width=64 must split"),
        (TOKENS | {"width": 12}, "heads=4: width=12 must split into heads of even size"),
        (TOKENS | {"conv": 1}, "conv=1: 0"),
        (TOKENS | {"conv": -1}, "conv=-1"),
        (TOKENS | {"window": 0}, "window=0: a window holds at least 1 event"),
        (TOKENS | {"norm_memory": 1}, "norm_memory=1"),
        (TOKENS | {"layers": ["attention"]}, "at least one 'deltanet'"),
        (TOKENS | {"layers": ["deltanet", "mamba"]}, r"layers\[1\]='mamba': 'attention' or"),
        (TOKENS | {"layers": ["atention"]}, r"layers\[0\]='atention'.*did you mean 'attention'"),
        (TOKENS | {"layers": ["deltanet", 3]}, r"layers"),
        (TOKENS | {"layers": "deltanet"}, r"layers='deltanet'"),
        (TOKENS | {"positions": "rotery"}, "rotery"),
        (TOKENS | {"carry": 1}, "carry"),
        (TOKENS | {"vocabulary": 1}, "vocabulary=1"),
        (TOKENS | {"channels": ["a"]}, "a token model has none"),
        (TOKENS | {"patch": 2}, "patch=2: tokens are read one by one"),
        (TOKENS | {"questions": "text"}, "questions='text': .*set answers"),
        (TOKENS | {"answers": -1}, "answers=-1: 0 .the next token., 1 .a real number. or more"),
        (TOKENS | {"answers": 3, "values": 65}, "values=65: 0 to 64"),
        (TOKENS | {"answers": 3, "values": -1}, "values=-1: 0 to 64"),
        (TOKENS | {"values": 2}, "values=2: .*set answers"),
        (SERIES | {"values": 2}, "values=2: a series model has none"),
        (SERIES | {"questions": "text"}, "questions='text': only a token model"),
        ({"vocabulary": 9}, "kind"),
        ({"kind": "series"}, "forecasts at least one channel"),
        (SERIES | {"channels": "ab"}, "channels"),
        (SERIES | {"actions": ["b"]}, "named twice: b"),
        (SERIES | {"vocabulary": 4}, "vocabulary=4: a series model has none"),
        (SERIES | {"quantiles": [0.5]}, "quantiles"),
        (SERIES | {"quantiles": [0.5, 0.1]}, "rising"),
        (SERIES | {"quantiles": [0.0, 0.5]}, "between 0 and 1"),
        (SERIES | {"patch": 65}, "patch=65: at most window=64"),
        ([1, 2], "a table is expected"),
    ],
    ids=str,
)
def test_what_cannot_be_built_is_refused(data: Any, told: str) -> None:
    with pytest.raises(asl.InputError, match=told) as caught:
        decode(asl.ModelConfig, data, where="model.toml")
    assert "model.toml" in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("kind", "sereis", "kind='sereis'.*did you mean 'series'"),
        ("positions", "rotery", "did you mean 'rotary'"),
        ("injection", "lnear", "did you mean 'linear'"),
        ("carry", "", "carry=''"),
        ("sleep_attention", "both", "'causal' or 'bidirectional'"),
        ("layers", ("deltanet", "atention"), "did you mean 'attention'"),
        ("questions", "txt", "questions='txt': 'alone' or 'text', did you mean 'text'"),
    ],
)
def test_words_are_checked_in_code_as_in_files(field: str, value: Any, told: str) -> None:
    with pytest.raises(asl.InputError, match=told):
        asl.ModelConfig(**(TOKENS | {field: value}))


def test_fields_that_came_later_are_in_the_hash_only_where_they_are_set() -> None:
    plain = asl.ModelConfig(**TOKENS, answers=4)
    assert "questions" not in plain.identity()
    asked = asl.ModelConfig(**TOKENS, answers=4, questions="text")
    assert asked.identity() == plain.identity() | {"questions": "text"}


@dataclass(frozen=True)
class Inner:
    rate: float = 0.1


@dataclass(frozen=True)
class Outer:
    model: asl.ModelConfig
    inner: Inner | None = None


def test_tables_within_tables() -> None:
    found = decode(Outer, {"model": TOKENS, "inner": {"rate": 1}})
    assert found.inner == Inner(1.0)
    with pytest.raises(asl.InputError, match=r"recipe\.inner: unknown field 'rte'"):
        decode(Outer, {"model": TOKENS, "inner": {"rte": 1}}, where="recipe")
    with pytest.raises(asl.InputError, match=r"recipe\.model: unknown field 'Width'"):
        decode(Outer, {"model": TOKENS | {"Width": 1}}, where="recipe")
    with pytest.raises(asl.InputError, match="conv=1"):
        decode(Outer, {"model": TOKENS | {"conv": 1}}, where="recipe")


@dataclass(frozen=True)
class Sizes:
    """Of a recipe with a table of its own, and a model that its task fills."""

    model: dict[str, Any]
    training: Inner | None = None
    eviction: str = "hard"


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (
            {"training": {"eviction": "hard"}},
            r"r\.training: .*'eviction': it belongs to the top",
        ),
        ({"model": {"eviction": "hard"}}, r"r\.model: .*'eviction': it belongs to the top, above"),
        (
            {"training": {"width": 3}},
            r"r\.training: .*'width': it belongs to \[model\]",
        ),
        ({"model": {"rate": 3}}, r"r\.model: unknown field 'rate': it belongs to \[training\]"),
        ({"rate": 3}, r"r: unknown field 'rate': it belongs to \[training\]"),
        ({"training": {"seed": 3}}, r"'seed': it is given to the command, as --seed"),
        ({"model": {"widht": 3}}, r"r\.model: unknown field 'widht', did you mean 'width'"),
        ({"model": {"layers": ["atention"]}}, r"r\.model\.layers\[0\]='atention'.*did you mean"),
    ],
    ids=str,
)
def test_a_field_in_the_wrong_table_is_told_where_it_belongs(data: Any, told: str) -> None:
    with pytest.raises(asl.InputError, match=told):
        decode(Sizes, {"model": {}} | data, where="r")


def test_a_toml_file(tmp_path: Path) -> None:
    path = tmp_path / "m.toml"
    path.write_text('kind = "tokens"\nvocabulary = 9\n')
    assert decode(asl.ModelConfig, read_toml(path)).vocabulary == 9
    path.write_text("kind = \n")
    with pytest.raises(asl.InputError, match="not valid TOML"):
        read_toml(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(asl.InputError, match="not valid TOML"):
        read_toml(path)
    with pytest.raises(asl.InputError, match="no such file"):
        read_toml(tmp_path / "absent.toml")


@pytest.mark.parametrize("config", [TOKENS, SERIES], ids=lambda c: c["kind"])
def test_default_models_can_be_built(config: dict[str, Any]) -> None:
    model = asl.Model(decode(asl.ModelConfig, config))
    assert model.parameters_count == sum(p.numel() for p in model.parameters())
    assert 10_000 < model.parameters_count < 200_000
