# SPDX-License-Identifier: BSD-3-Clause
"""A timeline as people look at it.

::

    page       one HTML file (page_assets/)      picture, bars   matplotlib
    chrome     JSON for chrome://tracing         perfetto        for ui.perfetto.dev
    slices     what is inside of what, for all of them
"""
