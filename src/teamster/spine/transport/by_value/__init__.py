# SPDX-License-Identifier: BSD-3-Clause
"""What plain pickle cannot send.

The definitions of the program itself travel by value or by a key that both sides know.
"""
