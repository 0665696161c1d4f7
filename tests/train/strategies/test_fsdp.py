# SPDX-License-Identifier: BSD-3-Clause
"""Under "fsdp" the losses and parameters are those of "single", in all that a trainer can do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from teamster.errors import UsageError
from teamster.train import Trainer
from tests.train.launching import DEADLINE_S, FAILS, found, run, script, start_ranks
from tests.train.sharded_cases import CASES, train

SAVED = "adam", "units"


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What each case gives in three ranks, and the folder of its checkpoints."""
    folder = tmp_path_factory.mktemp("sharded")
    for case in SAVED:
        train(case, "single", save=folder / f"{case} of single")
    result = run("-m", "tests.train.sharded_cases", str(folder), ranks=3)
    return found(result), folder


def check_equal(mine: Any, theirs: Any, tolerance: float = 1e-5) -> None:
    losses, mean, sums = mine
    assert [number for each in losses for number in each] == pytest.approx(
        [number for each in theirs[0] for number in each], abs=tolerance
    )
    assert mean == pytest.approx(theirs[1], abs=tolerance)
    assert list(sums) == list(theirs[2])
    assert list(sums.values()) == pytest.approx(list(theirs[2].values()), rel=1e-3, abs=1e-2)


@pytest.mark.parametrize("case", CASES)
def test_curves_are_those_of_single(case: str, sharded: Any) -> None:
    half = "precision" in CASES[case]
    check_equal(sharded[0][case], train(case, "single"), tolerance=2e-2 if half else 1e-5)


@pytest.mark.parametrize("case", SAVED)
def test_it_goes_on_from_what_either_has_saved(case: str, sharded: Any) -> None:
    told, folder = sharded
    expected = train(case, "single", load=folder / f"{case} of single")
    check_equal(told[f"{case}, of single"], expected)
    check_equal(told[f"{case}, goes on"], expected)
    check_equal(train(case, "single", load=folder / case), expected)


def test_one_program_has_no_ranks() -> None:
    model = nn.Linear(1, 1)
    with pytest.raises(UsageError, match="torchrun --nproc-per-node=2, or take 'ddp'"):
        Trainer(model, torch.optim.SGD(model.parameters()), "fsdp")


REFUSED = """
    import torch
    from torch import nn
    from teamster.errors import UsageError
    from teamster.train import Trainer

    def told(model, optimizer=None, **how):
        try:
            Trainer(model, optimizer or torch.optim.SGD(model.parameters(), 0.1), "fsdp", **how)
        except UsageError as error:
            print("told", error, flush=True)

    torch.distributed.init_process_group("gloo")
    told(nn.ParameterDict({"scale": nn.Parameter(torch.ones(()))}))
    told(nn.Embedding(3, 2, sparse=True))
    told(nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1)), sync_batchnorm=True)
    model = nn.Linear(1, 1)
    told(model, torch.optim.SGD(nn.Linear(1, 1).parameters()))
    told(nn.ModuleList([model]))
    told(model, torch.optim.Adafactor(model.parameters()))
    told(nn.Conv2d(2, 2, 3).to(memory_format=torch.channels_last))
    with Trainer(nn.Sequential(model), torch.optim.Adam(model.parameters()), "fsdp"):
        pass
    told(model)
"""


def test_what_cannot_be_sharded_is_refused(tmp_path: Path) -> None:
    result = run(script(tmp_path, REFUSED), ranks=1)
    assert [line.split(":")[0] for line in result.stdout.splitlines()] == [
        "told strategy 'fsdp' shards parameters by their first dimension, and scale has none",
        "told strategy 'fsdp' has no sparse gradients, and the model has",
        "told sync_batchnorm= is not for strategy 'fsdp'",
        "told the optimizer has parameters that are not the model's, and 'fsdp' computes gradients "
        "of the model's only",
        "told strategy 'fsdp' shards what has a forward(), and ModuleList has none",
        "told Adafactor keeps means over rows and columns, of which a rank has a part only",
        "told strategy 'fsdp' shards rows that are in one piece, and those of weight are not (is "
        "it channels_last?)",
        "told the model is sharded already",
    ], result.stderr[-3_000:]


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("error", "told 0 ZeroDivisionError of the user's ['in rank 1']"),
        ("kill", "told 0 WorkerDied rank 1 (process "),
        ("stays", "rank 0 can go on no more: in step 2, rank 1 has failed: ZeroDivisionError: of"),
        ("late", "this_is_where_it_is"),
    ],
)
def test_what_has_happened_in_another_rank(how: str, told: str, tmp_path: Path) -> None:
    """That rank 0 waits for, in a collective of torch's that cannot be ended."""
    first, second = start_ranks(script(tmp_path, FAILS), "fsdp", how)
    output, errors = first.communicate(timeout=DEADLINE_S)
    assert told in output + errors
    assert first.returncode == 1
    second.kill()
    output, _ = second.communicate(timeout=DEADLINE_S)
    assert how not in ("error", "stays") or "told 1 ZeroDivisionError of the user's" in output
