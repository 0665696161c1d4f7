# SPDX-License-Identifier: BSD-3-Clause
"""`auto`: the strategies that can run here take turns over the user's own steps.

::

    single with 1, 2, ... threads, dp with 2, ... replicas take turns --> the fastest
        meanwhile the ranks of ddp start; they take turns with the fastest --> the fastest

Each turn is a step of the training: nothing is run twice. How turns are taken is written in
spine/plan/trials.py.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

import torch
from torch import nn

from teamster.errors import TransferError, UsageError
from teamster.machine.cpus import usable_cores
from teamster.parallel.auto import group_counts
from teamster.parallel.validation import check_replicable
from teamster.spine.plan.plan import Candidate, Plan
from teamster.spine.plan.store import VARIABLE, store_from_environment
from teamster.spine.plan.trials import Trials, Turn
from teamster.train.strategies.ddp import Ranks
from teamster.train.strategies.dp import Replicated
from teamster.train.strategies.single import Single
from teamster.train.strategies.strategy import Losses, Strategy, Work, has_statistics

Setting = tuple[str, int]
"""A strategy and its workers; of "single" the inner threads."""

NOT_IN_THREADS = (
    "sync_batchnorm= is for ranks: strategy 'dp' may run its replicas one after the other"
)
_WORTH_RANKS_S = 2e-3  # a step that takes less gains nothing from processes


class Measuring:
    """Chooses by the steps that it makes.

    Args:
        module: the user's.
        workers: how many replicas or ranks, where that is fixed.
        retries: of `Ranks`.
        sync_batchnorm: of `Ranks`.

    Attributes:
        plan: what is used now, and why.

    Example:
        >>> Measuring(nn.Linear(1, 1)).plan.backend
        'single'
    """

    name = "auto"

    def __init__(
        self,
        module: nn.Module,
        workers: int | None = None,
        retries: int = 1,
        *,
        sync_batchnorm: bool = False,
    ) -> None:
        self._synchronized = sync_batchnorm
        self._module = module
        self._retries = retries
        self._cores = usable_cores()
        self._counts = group_counts(self._cores)[1:] if workers is None else [workers]
        self._notes: dict[str, str] = {}
        self._made: dict[Setting, Strategy] = {}
        self._seconds: dict[Setting, float] = {}  # a sample
        self._ranks: Setting | None = None  # still to be tried
        self._step_s, self._rows = 0.0, 1.0
        self._local: Setting = ("", 0)  # the fastest without other processes
        settings = self._settings()
        self._store = store_from_environment()
        self._call, recorded = "", None
        if self._store is not None:
            self._call, recorded = self._store.next_call(_Named(module, self._cores))
        self._reason = ""
        if recorded is not None and self._can(settings, recorded):
            settings, self._ranks = [self._setting_of(recorded)], None
            self._reason, self._call = f"recorded in {VARIABLE}", ""
        self._trials = Trials(settings)
        self._turn: Turn[Setting] = Turn(self._trials, settings[0], None)

    def _can(self, settings: list[Setting], plan: Plan) -> bool:
        """Whether a recorded plan can be run here."""
        return self._setting_of(plan) in (*settings, self._ranks)

    def _setting_of(self, plan: Plan) -> Setting:
        on_accelerator = any(each.device.type != "cpu" for each in self._module.parameters())
        alone = plan.backend == "single" and on_accelerator
        return plan.backend, 0 if alone else plan.workers

    def _settings(self) -> list[Setting]:
        """Those that can run here; the first is the program's own loop."""
        accelerators = {each.device.type for each in self._module.parameters()} - {"cpu"}
        if accelerators:
            found: list[Setting] = [("single", 0)]
            count = torch.cuda.device_count() if accelerators == {"cuda"} else 1
            many = [count] if count > 1 else []
            self._notes["ddp"] = "the model is on an accelerator: start the program with torchrun"
        else:
            threads = dict.fromkeys((torch.get_num_threads(), *group_counts(self._cores)))
            found = [("single", count) for count in threads]
            many = [count for count in self._counts if count > 1]
        if many:
            self._look_at_the_module()
        if many and "ddp" not in self._notes:
            self._ranks = "ddp", many[-1]
        return [*found, *(("dp", count) for count in many if "dp" not in self._notes)]

    def _look_at_the_module(self) -> None:
        """Note where several replicas would not mean the same, or cannot be."""
        try:
            check_replicable(getattr(self._module, "_orig_mod", self._module))
        except UsageError as error:
            self._notes["dp"] = self._notes["ddp"] = str(error)
        if has_statistics(self._module):
            note = "its BatchNorm layers would take statistics of fewer rows"
            self._notes["dp"] = NOT_IN_THREADS if self._synchronized else note
            if not self._synchronized:
                self._notes["ddp"] = note

    # --- steps ------------------------------------------------------------------------------------

    @property
    def workers(self) -> int:
        """How many slices are computed at a time."""
        return self._strategy(self._trials.best).workers

    @property
    def differs(self) -> str:
        """What is not as under "single"."""
        return self._strategy(self._trials.best).differs

    def run(self, work: Work) -> Losses:
        """As every strategy."""
        turn = self._turn = self._trials.begin()
        if not turn.counts:
            self._try_ranks()
            return self._strategy(turn.setting).run(work)
        try:
            return self._timed(turn, work)
        except (UsageError, TransferError) as error:
            if turn.setting[0] == "single":
                raise
            self._rule_out(turn.setting, error)
            for parameter in self._module.parameters():
                parameter.grad = None  # as it was when the step began
            self._turn = self._trials.begin()
        return self._strategy(self._trials.best).run(work)

    def update(self, apply: Callable[[], object]) -> None:
        """As every strategy; its time belongs to the turn."""
        turn = self._turn
        began = perf_counter()
        self._strategy(turn.setting).update(apply)
        if turn.counts and turn.seconds:
            turn.later_seconds = (perf_counter() - began) / self._rows

    def _timed(self, turn: Turn[Setting], work: Work) -> Losses:
        began = perf_counter()
        losses = self._strategy(turn.setting).run(work)
        for loss in losses.values():
            loss.item()  # an accelerator has done it by then
        self._rows = max(1.0, work.rows())
        seconds = (perf_counter() - began) / self._rows
        turn.end(seconds)
        self._seconds[turn.setting] = min(seconds, self._seconds.get(turn.setting, seconds))
        self._step_s = seconds * self._rows
        return losses

    def _try_ranks(self) -> None:
        """The turns are over: now the ranks, where steps are long enough for them."""
        setting = self._ranks
        if setting is None:
            self._give_up_ranks()
            self._record()
        elif self._started(setting):
            self._ranks, self._local = None, self._trials.best
            self._trials = Trials([self._local, setting])

    def _started(self, setting: Setting) -> bool:
        """Whether the ranks are there; the first time they are started, if they are of any use."""
        known = self._made.get(setting)
        if isinstance(known, Ranks):
            return known.have_come()
        if self._step_s < _WORTH_RANKS_S:
            self._notes["ddp"] = "a step takes less than messages to another process may"
            self._ranks = None
            return False
        ranks = self._strategy(setting)
        assert isinstance(ranks, Ranks)
        try:
            ranks.start()
        except TransferError as error:
            self._rule_out(setting, error)
            self._ranks = None
        return False

    def _give_up_ranks(self) -> None:
        """End the ranks that were tried and are not used."""
        seconds = self._seconds
        if self._local in seconds and seconds[self._local] <= seconds.get(self._trials.best, 0.0):
            self._trials = Trials([self._local])  # it was faster when the ranks were not there
        for setting, strategy in self._made.items():
            if setting[0] == "ddp" and setting != self._trials.best:
                strategy.close()
                self._trials = Trials([self._trials.best])
                del self._made[setting]
                break

    def _record(self) -> None:
        """Have the next run begin with what was found."""
        call, self._call = self._call, ""
        if self._store is not None and call:
            self._store.record(call, self.plan)

    def _rule_out(self, setting: Setting, error: Exception) -> None:
        self._notes[setting[0]] = str(error)
        strategy = self._made.pop(setting, None)
        if strategy is not None:
            strategy.close()
        self._trials.rule_out()

    def _strategy(self, setting: Setting) -> Strategy:
        if setting not in self._made:
            self._made[setting] = self._make(*setting)
        return self._made[setting]

    def _make(self, name: str, count: int) -> Strategy:
        if name == "dp":
            return Replicated(self._module, count)
        if name == "ddp":
            return Ranks(self._module, count, self._retries, sync_batchnorm=self._synchronized)
        return Single(self._module, count or None)

    def close(self) -> None:
        """End threads and ranks."""
        for strategy in self._made.values():
            strategy.close()

    # --- what it says -----------------------------------------------------------------------------

    @property
    def plan(self) -> Plan:
        """What is used now, and why."""
        name, count = self._trials.best
        tried = [
            Candidate(kind, each, measured=1.0 / seconds)
            for (kind, each), seconds in self._seconds.items()
        ]
        left_out = [Candidate(kind, 0, note=note) for kind, note in self._notes.items()]
        if self._trials.is_open():
            reason = "steps are measured"
        elif self._reason:
            reason = self._reason
        elif len(tried) < 2:
            reason = "nothing else can run here"
        else:
            reason = "the fastest of the strategies that were tried"
        return Plan(name, max(1, count), reason, tuple(tried + left_out))


class _Named:
    """A model by what is the same in the next run, as the store of plans names functions.

    Args:
        module: the user's.
        cores: that it may use.
    """

    def __init__(self, module: nn.Module, cores: int) -> None:
        numbers = sum(each.numel() for each in module.parameters())
        kind = type(module)
        self.__module__ = kind.__module__
        self.__qualname__ = f"{kind.__qualname__} of {numbers:,} parameters on {cores} cores"

    def __call__(self) -> None:
        """It stands for a training, and is never called."""
