# SPDX-License-Identifier: BSD-3-Clause
"""The part of a trainer that saves all of the training, and goes on from there."""

from __future__ import annotations

import os
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Literal

from torch import nn

from teamster.errors import UsageError
from teamster.train.checkpoint_files import find, read
from teamster.train.loading import Loading
from teamster.train.saving import Saver
from teamster.train.training_state import put_together, random_states, restore_random
from teamster.train.update import Update

PathLike = str | os.PathLike[str]


class Resumable:
    """What `Trainer` has of it.

    Attributes:
        model: the user's.
        is_main: whether this program is the only one, or rank 0.
    """

    model: nn.Module
    _update: Update
    _loading: Loading
    _saver: Saver
    _steps: int
    _seed: int

    @property
    def is_main(self) -> bool:
        """See `Trainer`."""
        raise NotImplementedError

    def save(
        self, path: PathLike, *, keep: int = 3, export: Literal["safetensors"] | None = None
    ) -> Future[Path] | None:
        """Save all of the training; returns when it is copied, and writes in the background.

        Model, optimizers, schedulers, scaler, random states and, where it has one, the position of
        the loader of `batches`. Any strategy loads what another has saved.

        Args:
            path: the folder of the run; each checkpoint is a folder in there, in the format of
                `torch.distributed.checkpoint`.
            keep: how many checkpoints are to stay.
            export: "safetensors" writes the model in that format, too.

        Returns:
            Where it is, when it is on the disk; None in ranks other than 0, which save nothing.

        Raises:
            OSError: the checkpoint before could not be written.

        Example:
            >>> import tempfile
            >>> import torch
            >>> from teamster.train import Trainer
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
        if not self.is_main:
            return None
        state = self.state_dict()
        return self._saver.save(
            Path(path), self._steps, state, keep=keep, export=export is not None
        )

    def load(self, path: PathLike) -> None:
        """Go on from a checkpoint.

        Args:
            path: of it, or of a run: then from its newest whole one.

        Raises:
            UsageError: there is none, or it is of another model or other optimizers.
        """
        self._saver.wait()
        tensors, rest = read(find(Path(path)))
        self.load_state_dict(put_together(rest, tensors))

    def state_dict(self) -> dict[str, Any]:
        """All that a checkpoint holds; its tensors are the training's own.

        Returns:
            A nested dict.

        Example:
            >>> import torch
            >>> from teamster.train import Trainer
            >>> model = nn.Linear(1, 1)
            >>> trainer = Trainer(model, torch.optim.SGD(model.parameters()), "single")
            >>> sorted(trainer.state_dict())
            ['loader', 'model', 'random', 'steps', 'update']
            >>> trainer.close()
        """
        return {
            "model": self.model.state_dict(),
            "update": self._update.state_dict(),
            "random": random_states(),
            "loader": self._loading.state(),
            "steps": (self._steps, self._seed),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Be as another trainer was.

        Args:
            state: of its `state_dict`.

        Raises:
            UsageError: it is of another model or other optimizers.
        """
        try:
            self.model.load_state_dict(state["model"])
            self._update.load_state_dict(state["update"])
        except (RuntimeError, ValueError) as error:
            raise UsageError(f"the checkpoint is of another training: {error}") from error
        self._steps, self._seed = state["steps"]
        self._loading.go_to(state["loader"])
        restore_random(state["random"])
