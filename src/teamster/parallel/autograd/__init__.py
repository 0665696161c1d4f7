# SPDX-License-Identifier: BSD-3-Clause
"""Backward in parallel: graphs joined, gradients summed, what of a model forbids it."""
