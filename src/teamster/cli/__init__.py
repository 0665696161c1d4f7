# SPDX-License-Identifier: BSD-3-Clause
"""The program ``teamster``: one file per command, found by name in ``main.py``.

A command's file has ``add_parser(subparsers)``, which declares its options, and ``run(arguments)``,
which does the work and returns the exit code.
"""
