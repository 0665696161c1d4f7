# SPDX-License-Identifier: BSD-3-Clause
"""Workers that are processes: backend.py (the parent's side), worker.py (what each of them runs), forkserver.py (their start)."""
