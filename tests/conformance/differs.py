# SPDX-License-Identifier: BSD-3-Clause
"""What is not as in CPython, and why.

A test that is listed fails the suite when it passes, and one that is not when it fails. A key is
the name of a class without the kind of its workers, and of a test. A reason begins with one of

    private     it looks at a private attribute of theirs, or at the words of a message
    better      the outcome here is another one on purpose, and says or keeps more
    choice      the outcome here is another one on purpose, for a reason that is given
    either      it passes or fails by chance, for a reason that is given
"""

from __future__ import annotations

import re

_WORDS = "private: the words of the message; the type of the error is theirs"
_DEATH = "better: the worker's death ends its own call, as WorkerDied, and the pool goes on"
_EXIT = (
    "choice: SystemExit in a task comes as a RemoteError, since it would steer the program and not "
    "its item"
)
_TRANSFER = (
    "better: what cannot be sent ends its own call, as TransferError with the pickler's error as "
    "its cause"
)
_INITIALIZER = "choice: each future has the initializer's own error, and nothing is logged"

BOTH = {
    "ExecutorTest.test_saturation": "private: _max_workers, _work_queue, _threads or _processes",
    "FailingInitializerTest.test_initializer": _INITIALIZER,
    "ShutdownTest.test_submit_after_interpreter_shutdown": _WORDS,
}
THREADS = {
    "ExecutorTest.test_default_workers": "choice: as many workers as there are usable cores, and "
    "not four more",
    "ExecutorTest.test_idle_thread_reuse": "private: _threads",
    "ShutdownTest.test_threads_terminate": "private: _threads",
}
PROCESSES = {
    "ExecutorDeadlockTest.test_crash_at_task_unpickle": _DEATH,
    "ExecutorDeadlockTest.test_crash_big_data": _DEATH,
    "ExecutorDeadlockTest.test_crash_during_func_exec_on_worker": _DEATH,
    "ExecutorDeadlockTest.test_crash_during_result_pickle_on_worker": _DEATH,
    "ExecutorDeadlockTest.test_error_at_task_pickle": _TRANSFER,
    "ExecutorDeadlockTest.test_error_at_task_unpickle": _TRANSFER,
    "ExecutorDeadlockTest.test_error_during_result_pickle_on_worker": _TRANSFER,
    "ExecutorDeadlockTest.test_error_during_result_unpickle_in_result_handler": _TRANSFER,
    "ExecutorDeadlockTest.test_exit_at_task_unpickle": _EXIT,
    "ExecutorDeadlockTest.test_exit_during_func_exec_on_worker": _EXIT,
    "ExecutorDeadlockTest.test_exit_during_result_pickle_on_worker": _TRANSFER,
    "ExecutorDeadlockTest.test_exit_during_result_unpickle_in_result_handler": _TRANSFER,
    "ExecutorDeadlockTest.test_shutdown_deadlock": _DEATH,
    "ExecutorDeadlockTest.test_shutdown_deadlock_pickle": "private: _executor_manager_thread",
    "ExecutorTest.test_idle_process_reuse_multiple": "private: _max_workers, _processes",
    "ExecutorTest.test_idle_process_reuse_one": "private: _max_workers, _processes",
    "ExecutorTest.test_killed_child": "private: _processes",
    "ExecutorTest.test_max_tasks_per_child": "private: _processes",
    "ExecutorTest.test_max_tasks_per_child_defaults_to_spawn_context": "private: _mp_context",
    "ExecutorTest.test_python_finalization_error": "private: how many threads theirs starts",
    "ExecutorTest.test_traceback": "private: the type of the error's cause, which has the same "
    "text",
    "ShutdownTest.test_hang_gh83386": "private: a program of theirs that cannot run with "
    "processes; they skip it",
    "ShutdownTest.test_processes_terminate": "private: _processes",
}
POOLS = {
    "Test.test_enter": "choice: `with` on a pool that has ended says nothing; the first call does",
    "Test.test_imap_handle_iterable_exception": "better: all results in front of the input's error "
    "come; theirs lose a chunk",
    "Test.test_make_pool": "private: _pool",
    "Test.test_map_no_failfast": "either: an item that no worker has begun when another fails is "
    "not run",
    "Test.test_resource_warning": "private: the words of a ResourceWarning",
}
POOLS_OF_PROCESSES = {
    "ErrorsTest.test_unpickleable_result": "better: a lambda arrives",
    "LifetimeTest.test_pool_worker_lifetime": "private: _pool",
    "Test.test_context": "choice: PoolClosed is a RuntimeError, as in concurrent.futures",
    "Test.test_map_unplicklable": _TRANSFER,
    "Test.test_traceback": "private: the type of the error's cause, which has the same text",
}

_KIND = re.compile(
    r"^(ThreadPool|ProcessPool(?:Forkserver|Fork|Spawn)|PoolOfProcesses|PoolOfThreads)(?:ProcessPool)?(.*)$"
)
_OF_KIND = {
    "ThreadPool": BOTH | THREADS,
    "ProcessPoolForkserver": BOTH | PROCESSES,
    "ProcessPoolSpawn": BOTH | PROCESSES,
    "ProcessPoolFork": BOTH | PROCESSES,
    "PoolOfThreads": POOLS,
    "PoolOfProcesses": POOLS | POOLS_OF_PROCESSES,
}


def reason_of(name: str) -> str:
    """Why a test, as in ``ThreadPoolWaitTests.test_timeout``, is expected to fail.

    Empty when it is not.
    """
    kind, test = _KIND.match(name).groups()  # type: ignore[union-attr]
    return _OF_KIND[kind].get(test, "")
