# SPDX-License-Identifier: BSD-3-Clause
"""Training by one `step`, under any strategy.

::

    Trainer.step      trainer: the façade        batch, loss function
       |
    strategies        single dp ddp fsdp auto: gradients of the batch on the model's parameters
       |
    update            scaled back, clipped, applied: the same for all
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from teamster.train.train_report import TrainReport
    from teamster.train.trainer import Trainer

__all__ = ["TrainReport", "Trainer"]

_HOMES = {"TrainReport": "train_report", "Trainer": "trainer"}


def __getattr__(name: str) -> object:
    """Import the file that owns a public name on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    value: object = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted({*globals(), *__all__})
