# SPDX-License-Identifier: BSD-3-Clause
"""The program ``teamster``: one file per command, found by name in ``main.py``.

A command's file has a DESCRIPTION (and an EPILOG, if its help ends with one); it declares its
options in ``add_options(parser)``, and ``run(arguments)`` does the work and returns the exit code.
"""
