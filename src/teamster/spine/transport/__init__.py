# SPDX-License-Identifier: BSD-3-Clause
"""How data gets to a worker and back: pickled.py (objects to bytes), arena.py (buffers in shared memory), channel.py (messages)."""
