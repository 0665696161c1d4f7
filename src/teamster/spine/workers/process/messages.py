# SPDX-License-Identifier: BSD-3-Clause
"""What is said between the program, its children and the fork server: each message and its fields.

A message is a tuple: its name, then its fields, in the order of the table. Nothing is looked up in
here while a program runs; a test holds the tables against what is sent. What a spawned process and
the program say beside this is in `tasks/child_call.py`.
"""

from __future__ import annotations

TO_CHILD = {
    "setup": "settings, index, entry, told, argument",  # the first: what to be like, and to do
    "adapt": "news",  # what has changed in the program since
    "home": "",  # only carries segments home
}
"""To any child, over its channel (children.py; child_main.py has them)."""

FROM_CHILD = {
    "text": "stream, text",  # whole lines of what it prints
    "log": "record",
    "warning": "name, text, filename, lineno",
}
"""From any child (streams.py, which delivers them, too)."""

TO_WORKER = {
    "spec": "identity, how, encoded",  # a function, which is kept unopened until it is needed
    "batch": "identity, number, size, first, one_by_one, encoded",
    "drop": "identity",  # no call will use this function again
}
"""To a child that runs batches (backend.py; worker.py has them)."""

FROM_WORKER = {
    "ready": "error",  # the initializer's, described, or None
    "results": "records, finished",  # of the log; what is known of batches that are over
    "unreadable": "number, error, part",  # a batch that could not be unpickled
}
"""From a child that runs batches (worker.py, result_log.py; handle.py translates them)."""

TO_SERVER = {
    "connect": "",  # with a descriptor: another control channel
    "spawn": "token, executable",  # with descriptors: a child on that channel and scoreboard
    "signal": "token, number",
    "kill": "token",  # and what it started
    "guard": "pid",  # a forked child: end it when the program is gone
    "unguard": "pid",
}
"""To the fork server (start.py, forkserver.py; forkserver_main.py has them)."""

FROM_SERVER = {
    "serving": "",
    "tracker": "",  # with a descriptor: the resource tracker that is shared
    "born": "token, pid",
    "died": "token, status, peak_bytes",
}
"""From the fork server (forkserver_main.py; start.py hears them)."""

MESSAGES = TO_CHILD | FROM_CHILD | TO_WORKER | FROM_WORKER | TO_SERVER | FROM_SERVER
