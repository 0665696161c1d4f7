# SPDX-License-Identifier: BSD-3-Clause
"""Functions to try Teamster with, and the demonstration (``python -m examples.demo``)."""
