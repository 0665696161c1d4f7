# SPDX-License-Identifier: BSD-3-Clause
"""Whether a function may leave this process.

It depends on what the function carries, what it does to things outside of it, and what a new
process lacks.
"""
