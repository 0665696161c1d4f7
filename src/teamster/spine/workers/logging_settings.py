# SPDX-License-Identifier: BSD-3-Clause
"""What a program teaches `logging`: classes of loggers and records, names of levels."""

from __future__ import annotations

from typing import Any

_LEVELS = (0, 10, 20, 30, 40, 50)  # those that `logging` itself names


def log_settings(logging: Any) -> dict[Any, Any]:
    """What the program has taught `logging`: classes, and names of levels, by level."""
    values = {level: name for level, name in logging._levelToName.items() if level not in _LEVELS}
    if (kind := logging.getLoggerClass()) is not logging.Logger:
        values["class"] = kind
    if (factory := logging.getLogRecordFactory()) is not logging.LogRecord:
        values["factory"] = factory
    return values


def set_log_settings(logging: Any, name: Any, value: Any) -> None:
    """Teach it the same; `...` takes it back."""
    if name == "class":
        logging.setLoggerClass(logging.Logger if value is ... else value)
    elif name == "factory":
        logging.setLogRecordFactory(logging.LogRecord if value is ... else value)
    elif value is not ...:
        logging.addLevelName(name, value)
