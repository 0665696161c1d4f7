# SPDX-License-Identifier: BSD-3-Clause
r"""``teamster top``: what the jobs of this user are doing right now.

::

    command --> jobs --> answers --> rates  jobs to ask, what they say, what that makes a second
           \--> screen --> parts, words     the page; terminal: keys, and the state that is put back
"""
