# SPDX-License-Identifier: BSD-3-Clause
"""Functions over many inputs.

The modules are pool.py (what a user holds), mapping.py (map and imap), submitting.py (futures) and
progress.py.
"""
