# SPDX-License-Identifier: BSD-3-Clause
"""A timeline as people look at it: a page, a picture, files for other viewers."""
