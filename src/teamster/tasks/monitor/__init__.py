# SPDX-License-Identifier: BSD-3-Clause
"""Pools as others see them: which are open, what they do right now, how long they have been at work."""
