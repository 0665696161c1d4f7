# SPDX-License-Identifier: BSD-3-Clause
"""A model behind HTTP: batches, replicas and refusals found out by measuring."""

from __future__ import annotations

from teamster.serve.server import Server

__all__ = ["Server"]
