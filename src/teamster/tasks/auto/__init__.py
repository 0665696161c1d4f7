# SPDX-License-Identifier: BSD-3-Clause
"""What "auto" does: the plan of a pool (planner.py), workers chosen while a call runs (measured.py), the caller's own items."""
