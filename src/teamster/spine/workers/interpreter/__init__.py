# SPDX-License-Identifier: BSD-3-Clause
"""Workers that are interpreters with a lock of their own, each in a thread of the program."""
