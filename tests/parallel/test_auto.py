# SPDX-License-Identifier: BSD-3-Clause
"""How a step is run: decided from the first ones, for each kind of step, and looked at again."""

from __future__ import annotations

import sys
import threading
import warnings

import pytest
import torch

from teamster.parallel.auto import Choosing, StepKind, Trial
from teamster.spine.plan.trials import Trials

TRAINING = StepKind(by_step=False, with_grad=True, training=True)
EVALUATION = StepKind(by_step=False, with_grad=False, training=False)
MOST_STEPS = 60


def auto(replicas: int = 4) -> Choosing:
    return Choosing(replicas, fixed=False, cpu=True)


def end(trial: Trial, seconds: float, whole: float = 0.0) -> None:
    """As if the step had taken so long, by the sample."""
    assert trial.turn.counts
    trial.turn.end(seconds)
    trial.turn.later_seconds = whole and whole - seconds


def run(choosing: Choosing, seconds: dict[int, float], kind: StepKind = TRAINING) -> list[int]:
    """Steps until nothing is tried any more.

    Each number of replicas takes the same time in all of them.
    """
    taken = []
    while (trial := choosing.begin(kind)).turn.counts and len(taken) < MOST_STEPS:
        taken.append(trial.replicas)
        end(trial, seconds[trial.replicas])
    return taken


@pytest.mark.parametrize(
    ("together", "chosen"), [(0.5, 4), (0.94, 4), (0.96, 1), (1.0, 1), (3.0, 1)]
)
def test_replicas_stay_only_where_they_are_clearly_faster(together: float, chosen: int) -> None:
    choosing = auto()
    taken = run(choosing, {1: 1.0, 2: together + 0.1, 4: together})
    assert choosing.begin(TRAINING).replicas == chosen
    assert taken[0] == 1  # nothing is started before it has been tried without
    assert len(taken) <= 12
    assert set(taken) == {1, 2, 4}


def test_the_first_step_of_each_is_a_warm_up() -> None:
    choosing, seen = auto(2), set()
    while (trial := choosing.begin(TRAINING)).turn.counts:
        end(trial, 100.0 if trial.replicas not in seen else 1.0 / trial.replicas)
        seen.add(trial.replicas)
    assert trial.replicas == 2


def test_cores_are_shared_out_in_groups() -> None:
    choosing = auto(12)
    taken = run(choosing, {1: 1.0, 2: 0.7, 4: 0.5, 8: 0.6, 12: 0.9})
    assert choosing.begin(TRAINING).replicas == 4
    assert taken[:5] == [1, 2, 4, 8, 12]


def test_who_is_far_behind_has_no_further_turn() -> None:
    choosing = auto(4)
    taken = run(choosing, {1: 1.0, 2: 2.1, 4: 2.2})
    assert (taken.count(1), taken.count(2), taken.count(4)) == (4, 2, 2)
    assert choosing.begin(TRAINING).replicas == 1
    choosing = auto(4)
    taken = run(choosing, {1: 3.0, 2: 1.5, 4: 1.0})
    assert taken.count(1) == 4  # the plain module is what all are compared with
    assert choosing.begin(TRAINING).replicas == 4


def test_which_numbers_are_in_use_is_known_when_nothing_is_tried() -> None:
    choosing = auto(2)
    assert choosing.in_use() == set()
    choosing.begin(TRAINING)
    assert choosing.in_use() is None
    run(choosing, {1: 1.0, 2: 0.5})
    run(choosing, {1: 1.0, 2: 1.5}, EVALUATION)
    assert choosing.in_use() == {1, 2}


def test_each_kind_of_step_chooses_for_itself() -> None:
    choosing = auto(2)
    run(choosing, {1: 1.0, 2: 0.5})
    run(choosing, {1: 1.0, 2: 1.5}, EVALUATION)
    assert choosing.begin(TRAINING).replicas == 2
    assert choosing.begin(EVALUATION).replicas == 1


def test_the_backward_pass_counts_where_there_is_one() -> None:
    choosing = auto(2)
    while (trial := choosing.begin(TRAINING)).turn.counts:
        alone = trial.replicas == 1
        # Slower forward, faster together
        end(trial, 1.0 if alone else 2.0, whole=9.0 if alone else 5.0)
    assert trial.replicas == 2
    choosing = auto(2)
    for number in range(MOST_STEPS):
        if not (trial := choosing.begin(TRAINING)).turn.counts:
            break
        alone = trial.replicas == 1
        end(
            trial, 1.0 if alone else 2.0, whole=0.0 if alone else 5.0 * (number % 2)
        )  # not in all ways: forward passes are compared
    assert trial.replicas == 1


def test_a_step_that_did_not_end_is_no_turn() -> None:
    choosing = auto(2)
    for _ in range(MOST_STEPS):
        assert choosing.begin(TRAINING).replicas == 1  # it raised an error, each time
    run(choosing, {1: 1.0, 2: 0.5})
    assert choosing.begin(TRAINING).replicas == 2


def test_a_choice_is_looked_at_again_and_less_and_less_often() -> None:
    contest, trials, steps = Trials([1, 2]), [], 0
    while len(trials) < 3:
        trial = Trial(contest.begin())
        if trial.turn.counts:
            if not trials or steps - trials[-1] > 20:
                trials.append(steps)
            # Another one is faster the second time
            end(trial, 1.0 if trial.replicas == (1 if len(trials) < 2 else 2) else 2.0)
        steps += 1
    assert trials[0] == 0
    assert 500 <= trials[1] < 520
    assert 1000 <= trials[2] - trials[1] < 1020
    assert contest.best == 2


def test_a_lap_is_timed_until_the_backward_pass_has_ended() -> None:
    x = torch.ones(2, requires_grad=True)
    trial = Trial(Trials([1, 2]).begin())
    trial.samples = 2
    output = {"y": x * 2, "name": "a", "leaf": x}
    trial.end(output)
    assert trial.turn.seconds > 0
    assert not trial.turn.later_seconds
    loss = output["y"].sum()
    loss.backward(retain_graph=True)
    first = trial.turn.later_seconds
    assert first > 0
    loss.backward()
    assert trial.turn.later_seconds == first


def test_a_backward_pass_through_two_forward_passes_is_nobodys() -> None:
    x, contest = torch.ones(2, requires_grad=True), Trials([1, 2])
    trials, outputs = [], []
    for _ in range(2):
        trials.append(Trial(contest.begin()))
        outputs.append(x * 2)
        trials[-1].end(outputs[-1])
    # As contrastive training does: the first would have had the time of both
    sum(outputs).sum().backward()
    assert [bool(trial.turn.later_seconds) for trial in trials] == [False, True]


def test_what_replicas_cannot_do_is_not_tried_again() -> None:
    choosing = auto(2)
    assert choosing.begin(TRAINING).turn.counts
    choosing.rule_out(TRAINING)
    for _ in range(2000):
        trial = choosing.begin(TRAINING)
        assert (trial.replicas, trial.turn.counts) == (1, False)
    assert choosing.begin(EVALUATION).turn.counts


def test_threads_may_end_a_trial_together() -> None:
    # One thread concluded while another looked at the trials: ValueError, min() of an empty
    # sequence.
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    errors: list[BaseException] = []

    def work(contest: Trials[int]) -> None:
        try:
            for _ in range(10):
                trial = Trial(contest.begin())
                if trial.turn.counts:
                    end(trial, 1.0)
        except BaseException as error:
            errors.append(error)

    try:
        for _ in range(200):
            contest = Trials([1, 2])
            threads = [threading.Thread(target=work, args=(contest,)) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    finally:
        sys.setswitchinterval(before)
    assert not errors


@pytest.mark.parametrize(
    ("most", "fixed", "cpu"),
    [(1, False, True), (1, True, True), (3, True, False), (3, False, False)],
)
def test_where_there_is_no_choice_nothing_is_tried(most: int, fixed: bool, cpu: bool) -> None:
    choosing = Choosing(most, fixed=fixed, cpu=cpu)
    for _ in range(MOST_STEPS):
        trial = choosing.begin(TRAINING)
        assert (trial.replicas, trial.turn.counts) == (most, False)
        trial.end()  # says nothing


def test_the_hint_comes_once_and_only_where_replicas_wait_for_each_other() -> None:
    choosing = Choosing(2, fixed=True, cpu=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        choosing.hint(11, 1.0)  # too early
    with pytest.warns(UserWarning, match=r"of 2 CPU replicas 1\.05 compute at one time"):
        choosing.hint(12, 1.05)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        choosing.hint(13, 1.0)
        Choosing(2, fixed=True, cpu=True).hint(50, 1.9)
        Choosing(2, fixed=False, cpu=True).hint(50, 1.0)
        Choosing(2, fixed=True, cpu=False).hint(50, 1.0)
        Choosing(1, fixed=True, cpu=True).hint(50, 1.0)
