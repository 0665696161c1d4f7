# SPDX-License-Identifier: BSD-3-Clause
"""The part of a trainer that saves all of the training, and goes on from there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Literal

from teamster.errors import UsageError
from teamster.train.checkpoint_files import find, is_whole, missing, read
from teamster.train.loading import Loading
from teamster.train.ranked import Ranked
from teamster.train.shards import as_part
from teamster.train.training_state import (
    give_parts,
    put_together,
    random_states,
    restore_random,
)
from teamster.train.update import Update

PathLike = str | os.PathLike[str]


class Resumable(Ranked):
    """What `Trainer` has of it.

    Attributes:
        model: the user's.
    """

    _update: Update
    _loading: Loading
    _steps: int
    _seed: int
    _epoch: int
    _folder: PathLike | None

    def epochs(self, count: int) -> Iterator[int]:
        """The epochs of a training, but for those that a loaded checkpoint has behind it.

        One that was left in the middle comes once more, and `batches` goes on where it was.

        Args:
            count: of all of them.

        Yields:
            Their numbers, from 0 on.

        Example:
            >>> import torch
            >>> from teamster.train import Trainer
            >>> from torch import nn
            >>> model = nn.Linear(1, 1)
            >>> trainer = Trainer(model, torch.optim.SGD(model.parameters()), "single")
            >>> list(trainer.epochs(3)), list(trainer.epochs(4))
            ([0, 1, 2], [3])
            >>> trainer.close()
        """
        while self._epoch < count:
            self._loading.is_through = False
            yield self._epoch
            self._loading.is_through = False
            self._epoch += 1

    def save(
        self,
        path: PathLike | None = None,
        *,
        keep: int = 3,
        export: Literal["safetensors"] | None = None,
    ) -> Future[Path] | None:
        """Save all of the training; returns when it is copied, and writes in the background.

        Model, optimizers, schedulers, scaler, random states and, where it has one, the position of
        the loader of `batches`. Any strategy loads what another has saved.

        Args:
            path: the folder of the run; each checkpoint is a folder in there, in the format of
                `torch.distributed.checkpoint`. None for the trainer's `folder`.
            keep: how many checkpoints are to stay.
            export: "safetensors" writes the model in that format, too.

        Returns:
            Where it is, when it is on the disk; None in ranks other than 0, which save nothing.

        Raises:
            OSError: the checkpoint before could not be written.
            UsageError: there is no path, nor a folder of the trainer; or, where ranks have parts of
                the model, not all of them have called this.

        Example:
            >>> import tempfile
            >>> import torch
            >>> from teamster.train import Trainer
            >>> from torch import nn
            >>> model = nn.Linear(1, 1)
            >>> with (
            ...     tempfile.TemporaryDirectory() as folder,
            ...     Trainer(model, torch.optim.SGD(model.parameters()), "single") as trainer,
            ... ):
            ...     place = trainer.save(folder).result()
            ...     trainer.load(folder)
            >>> place.name
            'step-00000000'
        """
        folder = self._path(path)
        with self._parts_together("save()"):
            if not self.is_main:
                give_parts([self.model.state_dict(), self._update.state_dict()])
                return None
            state, with_export = self.state_dict(), export is not None
            return self._saver.save(folder, self._steps, state, keep=keep, export=with_export)

    def load(self, path: PathLike | None = None) -> None:
        """Go on from a checkpoint.

        Where torchrun has started the ranks, rank 0 finds it, and sends it to those that do not
        have it on their disk.

        Args:
            path: of it, or of a run: then from its newest whole one. None for the trainer's
                `folder`.

        Raises:
            UsageError: there is none, or it is of another model or other optimizers.
        """
        self._saver.wait()
        folder = self._path(path)
        place = self._newest(folder)
        if place is None:
            raise missing(folder)
        self._load_from(place)

    def _newest(self, folder: Path) -> Path | None:
        """The whole checkpoint that rank 0 has found, if there is one."""
        found: Path | None = self.gather(find(folder) if self.is_main else None)[0]
        return found

    def _load_from(self, place: Path) -> None:
        """A checkpoint that rank 0 has found whole."""
        here = self.is_main or is_whole(place)
        found = read(place) if here else None
        if not all(self.gather(here)):
            sent = self.gather(found if self.is_main else None)[0]
            found = sent if found is None else found
        assert found is not None
        tensors, rest = found
        self.load_state_dict(put_together(rest, tensors))

    def _resume(self, from_where: PathLike | None) -> None:
        """When the trainer is made; "auto" begins afresh where there is no checkpoint yet."""
        if from_where != "auto":
            if from_where is not None:
                self.load(from_where)
            return
        place = self._newest(self._path(None))
        if place is not None:
            self._load_from(place)

    def _path(self, path: PathLike | None) -> Path:
        if path is None and self._folder is None:
            raise UsageError(
                "no path of a run was given: save(path), load(path), or Trainer(..., folder=path)"
            )
        return Path(self._folder if path is None else path)  # type: ignore[arg-type]

    def state_dict(self) -> dict[str, Any]:
        """All that a checkpoint holds; its tensors are the training's own.

        Returns:
            A nested dict.

        Example:
            >>> import torch
            >>> from teamster.train import Trainer
            >>> from torch import nn
            >>> model = nn.Linear(1, 1)
            >>> trainer = Trainer(model, torch.optim.SGD(model.parameters()), "single")
            >>> sorted(trainer.state_dict())
            ['epoch', 'loader', 'model', 'random', 'steps', 'update']
            >>> trainer.close()
        """
        return {
            "model": self.model.state_dict(),
            "update": self._update.state_dict(),
            "random": random_states(),
            "loader": self._loading.state(),
            "steps": (self._steps, self._seed),
            "epoch": self._epoch + self._loading.is_through,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Be as another trainer was.

        Args:
            state: of its `state_dict`.

        Raises:
            UsageError: it is of another model or other optimizers.
        """
        try:
            mine = self.model.state_dict()
            saved = {name: as_part(each, mine.get(name)) for name, each in state["model"].items()}
            self.model.load_state_dict(saved)
            self._update.load_state_dict(state["update"])
        except (RuntimeError, ValueError) as error:
            raise UsageError(f"the checkpoint is of another training: {error}") from error
        self._steps, self._seed = state["steps"]
        self._epoch = state["epoch"]
        self._loading.go_to(state["loader"])
        restore_random(state["random"])
