"""Run by `test_triton` in a process of its own, under Triton's interpreter: prints every error as
JSON."""

from __future__ import annotations

import json
import sys

import torch
from rule_cases import error, make_case
from test_rule import results

from adaptive_sleep.kernels import gated_delta_rule

CASES = {
    "one chunk": {"steps": 20, "key": 16, "value": 16},
    "many chunks": {"steps": 75, "key": 32, "value": 32},
    "lengths": {"batch": 3, "steps": 40, "key": 32, "value": 32, "lengths": True},
    "strong gates": {"steps": 64, "key": 32, "value": 32, "gate": 80.0},
    "repeated keys": {"steps": 40, "key": 32, "value": 32, "repeated": True, "beta": 1.0 - 1e-6},
    "64": {"batch": 1, "steps": 40, "key": 64, "value": 64},
    "128": {"batch": 1, "steps": 33, "heads": 1, "key": 128, "value": 128},
    "96, 256": {"batch": 1, "steps": 33, "heads": 1, "key": 96, "value": 256},
    "narrow": {"steps": 5, "heads": 3, "key": 8, "value": 4},
    "one event": {"batch": 3, "steps": 1, "key": 32, "value": 32},
    "forgetting": {"steps": 40, "key": 16, "value": 16, "forgets": True},
}


def poison() -> None:
    """Make every new buffer start as NaN, so that an element nobody wrote shows."""
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True


def main(device: str) -> None:
    """Print {case: {tensor: [error, finite]}} for each case, with and without gradient."""
    poison()
    found: dict[str, dict[str, list[float | bool]]] = {}
    for seed, (name, options) in enumerate(CASES.items()):
        case = make_case(seed, **options).to(device)  # type: ignore[arg-type]
        wanted = results(case.cast(torch.float64, grad=True), "reference")
        ours = results(case.cast(torch.float32, grad=True), "triton")
        plain = case.cast(torch.float32)
        o, state, change = gated_delta_rule(
            *plain.inputs(),
            initial_state=plain.state,
            lengths=plain.lengths,
            return_state_change=True,
            backend="triton",
        )
        ours |= {"plain o": o, "plain state": state, "plain change": change}
        wanted |= {
            "plain o": wanted["o"],
            "plain state": wanted["state"],
            "plain change": wanted["change"],
        }
        found[name] = {
            n: [error(ours[n], x), bool(torch.isfinite(ours[n]).all())] for n, x in wanted.items()
        }
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1])
