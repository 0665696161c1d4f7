# SPDX-License-Identifier: BSD-3-Clause
"""The load generator behind ``teamster load``.

::

    arrivals --moments--> generator --requests--> connections --answers--> results --> table, plot
"""
