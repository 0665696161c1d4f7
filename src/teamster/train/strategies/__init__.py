# SPDX-License-Identifier: BSD-3-Clause
"""Ways to have the gradients of a batch; one file each, one contract (strategy.py)."""
