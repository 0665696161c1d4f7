# SPDX-License-Identifier: BSD-3-Clause
"""The thread that reads all rings while something is recorded, and samples the machine beside them.

::

    ring of a thread of this process -+
    ring of a process worker         -+-> tracks (columns) -> Timeline  every 50 ms, and at the end
    GIL, processors, memory          ---> curves                        every 250 ms

What is kept is bounded: past a million spans the shortest are drawn together with their neighbours,
and workers are told to write no others of that length. One recorder serves all recordings of a
process; each takes the time between its own two moments.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter, perf_counter_ns, thread_time, time_ns

from teamster import lifetime
from teamster.errors import UsageError
from teamster.machine.gil import GilSampler
from teamster.machine.own_threads import own_thread
from teamster.machine.usage import UsageMeter
from teamster.spine.trace import spans as here
from teamster.spine.trace.columns import Spans
from teamster.spine.trace.lanes import Track, lanes_of
from teamster.spine.trace.reader import Names, RingReader
from teamster.spine.trace.ring import CAPACITY, Ring
from teamster.spine.trace.spans import Remote
from teamster.spine.trace.timeline import Curve, JobNote, Mark, Timeline

MOST_SPANS = 1_000_000  # rows of six numbers, and a page that still moves
_FIRST_GRAIN_NS = 10_000  # below that a span is no wider than a pixel for long
_COARSER = 8  # times, so that a full recording is halved in a step or two
_READ_S = 0.05  # 20 times a second, before any writer fills a ring
_SAMPLE_S = 0.25  # of processors and memory
_SHARE = 0.02  # of a processor, for reading and sampling
# Each look takes the lock from the thread that runs Python code, and from the sampler of a choice
_GIL_MEAN_S = 0.01
_LEAST_READ_S = 0.01  # of a ring that fills fast
_MOST_READ_S = 1.0  # so that a worker's last spans are not old
_MOST_MARKS = 10_000  # what a page can show
_MOST_NOTES = 1_000  # plans and reports, the latest
_MOST_POINTS = 20_000  # of one curve; every other one is left out then
_MOST_GRAIN_NS = 1 << 40  # 18 minutes: nothing is coarser


@dataclass(slots=True, eq=False)
class _Source:
    """A ring that is read."""

    reader: RingReader
    track: Track
    thread: threading.Thread | None = None
    remote: Remote | None = None

    def is_over(self) -> bool:
        """Whether its writer is a thread that has ended."""
        if isinstance(self.thread, threading._DummyThread):
            # Not started by `threading`, which thinks that it lives for ever
            return self.thread.ident not in sys._current_frames()
        return self.thread is not None and not self.thread.is_alive()


class ProgramRecorder:
    """Records this process and the workers that it has."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # held briefly: a team that loses a worker waits for it
        # Held while spans are merged, and by the caller that wants all of them; taken first
        self._shaping = threading.Lock()
        self._rings = threading.local()
        self._names = Names()
        self._sources: list[_Source] = []
        self._tracks: list[Track] = []  # of those that are there
        self._done: dict[str, list[Track]] = {}  # and of those that have gone
        self._marks: list[Mark] = []
        self._curves: dict[str, tuple[str, list[tuple[int, float]]]] = {}
        self._notes: dict[int, Callable[[int], JobNote | None]] = {}
        self._grain_ns = self._lost = self._kept = 0
        self._most = MOST_SPANS
        self._over = threading.Event()
        self._gil = GilSampler(mean_s=_GIL_MEAN_S)
        self._thread = own_thread(
            threading.Thread(target=self._live, name="teamster-recorder", daemon=True)
        )

    def start(self) -> None:
        """Read from now on."""
        self._gil.__enter__()
        try:
            self._thread.start()
        except BaseException:
            self._gil.__exit__()
            raise

    def stop(self) -> None:
        """Read no more."""
        self._over.set()
        self._thread.join()
        self._gil.__exit__()
        with self._lock:
            self._read_all()
            for source in self._sources:
                source.reader.close()
                if source.remote is not None:
                    source.remote.switch(False)
            self._sources.clear()

    # --- what writers do --------------------------------------------------------------------------

    def ring(self) -> Ring:
        """That of the calling thread."""
        ring: Ring | None = getattr(self._rings, "ring", None)
        return ring if ring is not None else self._open_ring()

    def _open_ring(self) -> Ring:
        ring = self._rings.ring = Ring.private()
        thread = threading.current_thread()
        label, kind, index = here.lane_of_thread() or _lane_of(thread)
        with self._lock:
            source = _Source(
                RingReader(ring.memory, self._names), Track(label, kind, index, os.getpid()), thread
            )
            source.reader.coarsen(self._grain_ns)
            self._take_in(source)
        self._rings.source = source
        return ring

    def leave_thread(self) -> None:
        """The calling thread ends: read its ring for the last time."""
        source: _Source | None = getattr(self._rings, "source", None)
        if source is not None:
            with self._lock:
                self._end(source)

    def follow(self, remote: Remote) -> None:
        """Read a worker's ring from now on."""
        with self._lock:
            if (
                self._over.is_set()
                or not here.is_there(remote)
                or any(source.remote is remote for source in self._sources)
            ):
                return
            try:
                memory = remote.memory()
            except OSError:  # too many files, or no memory: its work is more than its picture
                self.mark(
                    f"{remote.label} is not on the timeline: there is no memory for its spans",
                    remote.label,
                )
                return
            remote.switch(True)
            track = Track(remote.label, remote.kind, remote.index)
            source = _Source(RingReader(memory, self._names), track, remote=remote)
            source.reader.coarsen(self._grain_ns)
            self._take_in(source)

    def _take_in(self, source: _Source) -> None:
        self._sources.append(source)
        self._tracks.append(source.track)

    def leave(self, remote: Remote) -> None:
        """Read a worker's ring for the last time."""
        with self._lock:
            for source in [source for source in self._sources if source.remote is remote]:
                self._end(source)

    def mark(self, text: str, lane: str) -> None:
        """Note a moment."""
        if len(self._marks) < _MOST_MARKS:
            self._marks.append(Mark(perf_counter_ns(), text, lane))

    def attend(self, key: int, note: Callable[[int], JobNote | None]) -> None:
        """Ask `note` at the end; a second time, ask another."""
        with self._lock:
            self._notes.pop(key, None)
            self._notes[key] = note
            while len(self._notes) > _MOST_NOTES:
                del self._notes[next(iter(self._notes))]

    # --- reading ----------------------------------------------------------------------------------

    def _live(self) -> None:
        try:
            self._watch()
        except Exception as error:  # a mistake of ours must not take the user's work with it
            self.mark(f"nothing was sampled from here on: {type(error).__name__}: {error}", "")

    def _watch(self) -> None:
        meter, sampled = UsageMeter(), 0.0
        gil_before = self._gil.counts()
        pause = _READ_S
        while not self._over.wait(pause):
            began, spent = perf_counter(), thread_time()
            with self._lock:
                most = self._read_all()
                pids = {
                    source.reader.pid for source in self._sources if source.remote is not None
                } - {0}
            if self._kept > self._most:
                self._coarsen()
            if began - sampled > _SAMPLE_S:
                sampled = began
                gil_before = self._sample(meter, pids, gil_before)
            # By processor time: waiting for the lock of an interpreter with threads that compute is
            # not work. (The curves of a run ended with its first threads.)
            wanted = (thread_time() - spent) / _SHARE
            fill_s = pause * CAPACITY / max(1, most)  # the fullest ring would be full again
            pause = min(max(_READ_S, wanted), _MOST_READ_S, max(_LEAST_READ_S, fill_s / 3))

    def _read_all(self) -> int:
        """Read every ring; returns how many spans the fullest held."""
        most, over = 0, []
        for source in list(self._sources):
            most = max(most, self._read(source))
            if source.is_over():
                over.append(source)
        for source in over:
            self._end(source)
        return most

    def _read(self, source: _Source) -> int:
        before = source.reader.overrun
        spans = source.reader.read()
        if source.reader.overrun > before:
            # Short spans come too fast, and take the place of the long ones
            self._raise_grain()
        if len(spans):
            source.track.spans.extend(spans)
            self._kept += len(spans)
        source.track.ended_ns = perf_counter_ns()
        source.track.pid = source.reader.pid or source.track.pid
        return len(spans)

    def _end(self, source: _Source) -> None:
        if source not in self._sources:
            return
        self._read(source)
        if source.thread is not None and source.is_over():  # some time ago
            source.track.ended_ns = max(source.track.spans.end, default=source.track.first_ns)
        self._lost += source.reader.lost
        source.reader.close()
        self._sources.remove(source)
        self._tracks.remove(source.track)
        for done in self._done.setdefault(source.track.label, []):
            if done.continue_with(source.track):
                # As many tracks as there were at one time stay, not as many as there ever were
                return
        self._done[source.track.label].append(source.track)

    def _coarsen(self) -> None:
        """Halve what is kept, at least."""
        with self._shaping:
            while self._kept > self._most // 2 and self._grain_ns < _MOST_GRAIN_NS:
                self._raise_grain()
                for track in self._all_tracks():
                    with self._lock:
                        spans, track.spans = track.spans, Spans()
                    merged = spans.merged(self._grain_ns)
                    with self._lock:
                        merged.extend(track.spans)
                        track.spans = merged
                self._kept = sum(len(track.spans) for track in self._all_tracks())

    def _all_tracks(self) -> list[Track]:
        with self._lock:
            return [*self._tracks, *(track for tracks in self._done.values() for track in tracks)]

    def _raise_grain(self) -> None:
        """Have shorter spans written together, or not at all."""
        with self._lock:
            self._grain_ns = max(_FIRST_GRAIN_NS, self._grain_ns * _COARSER)
            for source in self._sources:
                source.reader.coarsen(self._grain_ns)

    def _sample(
        self, meter: UsageMeter, pids: set[int], gil_before: tuple[int, int]
    ) -> tuple[int, int]:
        usage, gil = meter.read(pids), self._gil.counts()
        moments, held = gil[0] - gil_before[0], gil[1] - gil_before[1]
        points = [
            ("processors", "processors", usage.processors),
            ("run delay", "processors", usage.delayed),
            ("memory", "bytes", float(usage.memory_bytes)),
        ]
        if moments:
            points.append(("GIL held", "share", held / moments))
        if usage.throttled or "throttled" in self._curves:
            points.append(("throttled", "share", usage.throttled))
        now = perf_counter_ns()
        with self._lock:
            for label, unit, value in points:
                points_so_far = self._curves.setdefault(label, (unit, []))[1]
                points_so_far.append((now, value))
                if len(points_so_far) > _MOST_POINTS:
                    del points_so_far[1::2]
        return gil

    # --- the result -------------------------------------------------------------------------------

    @property
    def lost(self) -> int:
        """Spans that are missing so far."""
        with self._lock:
            return self._lost + sum(source.reader.lost for source in self._sources)

    def timeline(self, begin_ns: int, lost_before: int = 0) -> Timeline:
        """What happened since `begin_ns`, when so many spans were missing already."""
        with self._lock:
            self._read_all()
        if self._kept > self._most:
            self._coarsen()
        with self._shaping, self._lock:
            end_ns = perf_counter_ns()
            lost = self.lost - lost_before
            lanes = lanes_of(self._all_tracks(), begin_ns, end_ns)
            curves = tuple(
                _curve(label, unit, points, begin_ns)
                for label, (unit, points) in self._curves.items()
            )
            marks = tuple(mark for mark in self._marks if mark.at_ns >= begin_ns)
            asked = list(self._notes.values())
        # Without the lock: a pool that is asked takes its own, with which it may be reading a
        # worker's last spans.
        jobs = tuple(note for note in (ask(begin_ns) for ask in asked) if note is not None)
        started_s = (time_ns() - (perf_counter_ns() - begin_ns)) / 1e9
        names = self._names.table()
        return Timeline(
            begin_ns, end_ns, started_s, names, lanes, curves, marks, jobs, self._grain_ns, lost
        )


def _curve(label: str, unit: str, points: list[tuple[int, float]], begin_ns: int) -> Curve:
    return Curve(label, unit, tuple(point for point in points if point[0] >= begin_ns))


def _lane_of(thread: threading.Thread) -> tuple[str, str, int]:
    """What a thread of the program's own is called."""
    return ("caller" if thread is threading.main_thread() else thread.name), "caller", -1


_users = 0  # recordings that are open
_users_lock = threading.Lock()


def open_recorder() -> ProgramRecorder:
    """The recorder of this process, which runs from now on; close it as often.

    Raises:
        UsageError: this is a worker that is being recorded.
    """
    global _users
    with _users_lock:
        recorder = here.current_recorder()
        if recorder is None:
            recorder = _begin()
        if not isinstance(recorder, ProgramRecorder):
            raise UsageError(
                "this code runs in a process worker, which its parent records; record there, or "
                "nowhere else"
            )
        _users += 1
        return recorder


def _begin() -> ProgramRecorder:
    lifetime.in_forked_copy(_disown)
    recorder = ProgramRecorder()
    recorder.start()  # before anything is written into it: there may be no thread to be had
    here.install(recorder)
    for remote in here.remotes():
        recorder.follow(remote)
    return recorder


def close_recorder(recorder: ProgramRecorder) -> None:
    """One recording is over; with the last ends the recorder."""
    global _users
    with _users_lock:
        _users -= 1
        if not _users:
            try:
                recorder.stop()  # while it is still told of workers that go
            finally:
                here.install(None)


def _disown() -> None:
    """In a forked copy of the program: the recorder's thread is the original's."""
    global _users, _users_lock
    _users, _users_lock = 0, threading.Lock()
    here.forget()
