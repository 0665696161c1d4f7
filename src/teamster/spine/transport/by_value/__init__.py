# SPDX-License-Identifier: BSD-3-Clause
"""What plain pickle cannot send: the definitions of the program itself, by value or by a key that both sides know."""
