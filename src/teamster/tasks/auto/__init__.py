# SPDX-License-Identifier: BSD-3-Clause
"""What "auto" does.

That is the plan of a pool (planner.py), workers chosen while a call runs (measured.py), and the
caller's own items.
"""
