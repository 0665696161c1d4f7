# SPDX-License-Identifier: BSD-3-Clause
"""What to do, and why: a decision is a value."""
