# SPDX-License-Identifier: BSD-3-Clause
"""Pools as others see them.

That is which are open, what they do right now, and how long they have been at work.
"""
