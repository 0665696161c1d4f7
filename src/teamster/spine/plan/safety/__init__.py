# SPDX-License-Identifier: BSD-3-Clause
"""Whether a function may leave this process: what it carries, what it does to things outside of it, what a new process lacks."""
