"""Two processes under torchrun give the gradient, and the losses, of one with the whole batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_learning import small

from adaptive_sleep.learning import config_of as config
from adaptive_sleep.learning import gradient, task_of
from adaptive_sleep.model import Model
from adaptive_sleep.side_by_side import Share, joined
from adaptive_sleep.streams.errors import InputError

STEPS = 20


def losses_and_gradient(share: Share) -> dict[str, Any]:
    """The first gradient, and the losses of 20 steps with AdamW alone."""
    recipe = small(steps=STEPS, batch=16, warmup=3)
    torch.manual_seed(0)
    model = Model(config(recipe))
    adam = torch.optim.AdamW(model.parameters(), lr=2e-3, betas=(0.9, 0.98))
    losses, first = [], []
    for step in range(STEPS):
        adam.zero_grad()
        losses.append(gradient(model, task_of(recipe), recipe.training, 0, step, share)[0])
        if not step:
            first = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
            first = first.tolist()
        adam.step()
    return {"losses": losses, "gradient": first, "uneven": uneven(share)}


def uneven(share: Share) -> list[float]:
    """The first gradient on texts in stages by difficulty: shares have not as many questions."""
    task = {"name": "gsm_symbolic", "max_op": 3, "lines": 4, "name_digits": 1}
    recipe = replace(small(batch=8, loss="every", stages=[[2, 3]]), task=task)
    torch.manual_seed(0)
    model = Model(config(recipe))
    gradient(model, task_of(recipe), recipe.training, 0, 0, share)
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).tolist()


@pytest.mark.timeout(300)  # three processes that import torch
def test_two_processes_give_the_gradient_of_one(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", __file__, str(tmp_path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    alone = losses_and_gradient(Share())
    for rank in (0, 1):
        found = json.loads((tmp_path / f"{rank}.json").read_text(encoding="utf-8"))
        for case in ("gradient", "uneven"):
            ours, wanted = (np.array(x[case]) for x in (found, alone))
            assert np.linalg.norm(ours - wanted) / np.linalg.norm(wanted) < 1e-6
        np.testing.assert_allclose(found["losses"], alone["losses"], atol=1e-4)


def test_shares_are_equal_and_together_the_batch() -> None:
    batch = task_of(small()).sample(np.random.default_rng(0), 6, part="train")
    parts = [Share(rank, 3).of(batch) for rank in range(3)]
    assert [len(part) for part in parts] == [2, 2, 2]
    assert sorted(np.concatenate([p.tokens[0] for p in parts]).tolist()) == sorted(
        batch.tokens[0].tolist()
    )
    with pytest.raises(InputError, match="multiple of the 4 processes"):
        Share(0, 4).of(batch)


if __name__ == "__main__":
    torch.set_num_threads(1)
    with joined() as mine:
        text = json.dumps(losses_and_gradient(mine))
        Path(sys.argv[1], f"{mine.rank}.json").write_text(text, encoding="utf-8")
