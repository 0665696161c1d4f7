# SPDX-License-Identifier: BSD-3-Clause
"""Who does the work, and dies: one contract (backend.py), four kinds that keep it, one team that hands out and recovers."""
