"""A line that is no event is answered with its number, the field, the value and what is allowed."""

from __future__ import annotations

import pytest
from run_cases import series_model, token_model

from adaptive_sleep.experiments.ndjson import ndjson_events
from adaptive_sleep.model import Model
from adaptive_sleep.streams.errors import InputError

START = '"time": 1, "values"'


@pytest.mark.parametrize(
    ("line", "named"),
    [
        (f'{{{START}: {{"load": "1.5"}}}}', "values: load='1.5': a number, or null where"),
        (f'{{{START}: {{"load": true}}}}', "values: load=True: a number, or null where"),
        (f'{{{START}: {{"load": NaN}}}}', "values: load=NaN: a number, or null where"),
        (f'{{{START}: {{"load": -Infinity}}}}', "values: load=-Infinity: a number, or null"),
        (f'{{{START}: {{"load": 1e400}}}}', "values: load=inf is not finite as float32; null"),
        (f'{{{START}: {{"load": {"9" * 5000}}}}}', "values: load=inf is not finite as float32"),
        (f'{{{START}: {{"lod": 2}}}}', "values: lod=2: no such channel, did you mean 'load'?"),
        (f'{{{START}: {{"zz": 2}}}}', "values: zz=2: no such channel; the channels are load, "),
        (f"{{{START}: [1, 2]}}", "values=[1, 2]: an object, a number for any of load, heat, fan"),
        (f'{{{START}: {{"load": 1, "load": 2}}}}', "load=2: given twice, before as 1; once"),
        (f'{{"time": 2, {START}: {{}}}}', "time=1: given twice, before as 2; once"),
        ('{"tme": 1, "values": {}}', "tme=1: no such field, did you mean 'time'?"),
        ('{"q": 1}', "q=1: no such field; the fields are stream, time, values, token, category"),
        ('{"values": {}}', "time: missing; ISO 8601 such as"),
        ('{"time": NaN, "values": {}}', "time=NaN: ISO 8601 such as"),
        ('{"time": true, "values": {}}', "time=True: ISO 8601 such as"),
        (f'{{"time": {"9" * 5000}, "values": {{}}}}', "time=inf: ISO 8601 such as"),
        ('{"time": "1712121512345", "values": {}}', "a number is written without quotes"),
        (f'{{"stream": 3, {START}: {{}}}}', "stream=3: a text"),
        (f'{{"stream": "\\ud800", {START}: {{}}}}', "a text that UTF-8 can hold"),
        ("[1]", "[1]: an object such as"),
        ('{"time": 1', "no JSON: Expecting ',' delimiter, at character 11"),
        ("[" * 100_000, "nested too deeply"),
        (b'{"time": 1, "stream": "\xff"}', "no UTF-8 at byte 24"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_wrong_in_a_line_is_named(line: str | bytes, named: str) -> None:
    config = series_model().config
    with pytest.raises(InputError) as caught:
        list(ndjson_events(['{"time": 0, "values": {}}', line], config, place="stdin"))
    said = str(caught.value)
    assert said.startswith("stdin, line 2: ")
    assert named in said
    assert len(said) < 250


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ('{"time": 1, "token": "7"}', "token='7': a whole number from 0 to 10"),
        ('{"time": 1, "token": 7.5}', "token=7.5: a whole number from 0 to 10"),
        ('{"time": 1, "token": true}', "token=True: a whole number from 0 to 10"),
        ('{"time": 1, "category": 7}', "category=7: unknown to the model"),
    ],
)
def test_what_is_wrong_with_a_token_is_named(line: str, named: str) -> None:
    model: Model = token_model()
    with pytest.raises(InputError, match="input, line 1: ") as caught:
        list(ndjson_events([line], model.config, categories=("open", "close")))
    assert named in str(caught.value)
