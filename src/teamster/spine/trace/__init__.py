# SPDX-License-Identifier: BSD-3-Clause
"""What happened, and how to see it."""
