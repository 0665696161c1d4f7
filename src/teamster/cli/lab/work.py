# SPDX-License-Identifier: BSD-3-Clause
"""The work of the four experiments: plain functions, as a reader would write them.

The report shows their code.
"""

from __future__ import annotations


def download(url: str) -> int:
    """Fetch a page.

    Args:
        url: Its address, ``http://host:port/path``.

    Returns:
        The size of the page in bytes.

    Raises:
        OSError: the server does not answer.

    Example:
        >>> from teamster.cli.lab.server import serve
        >>> with serve() as server:
        ...     download(f"{server.address}/page/1")
        65536
    """
    from http.client import HTTPConnection
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    connection = HTTPConnection(parts.netloc, timeout=60)
    try:
        connection.request("GET", parts.path)
        return len(connection.getresponse().read())
    finally:
        connection.close()


def write_file(folder: str) -> int:
    """Write a large text file. It has no name, so it is gone as soon as it is closed.

    Args:
        folder: Where to.

    Returns:
        Characters written.

    Raises:
        OSError: the folder cannot be written, or the disk is full.

    Example:
        >>> write_file("/tmp")
        32000000
    """
    from tempfile import TemporaryFile

    text = (
        "It is a truth universally acknowledged that a large text file is made of lines.\n" * 50_000
    )
    with TemporaryFile("w", encoding="utf-8", dir=folder) as file:
        return sum(file.write(text) for _ in range(8))


def loop(n: int) -> int:
    """Add up the squares of the numbers below `n`, one at a time.

    Args:
        n: How many.

    Returns:
        The sum.

    Example:
        >>> loop(4)
        14
    """
    total = 0
    for number in range(n):
        total += number * number
    return total


def dot(task: tuple[int, int]) -> float:
    """Multiply a matrix by itself.

    Args:
        task: Its rows, and the threads that the library behind NumPy (BLAS) may use for it.

    Returns:
        One number of the product.

    Example:
        >>> round(dot((8, 1)), 3)
        0.125
    """
    import numpy as np
    from threadpoolctl import threadpool_limits

    size, threads = task
    matrix = np.full((size, size), 1.0 / size)
    threadpool_limits(threads, user_api="blas")  # from here on, in all threads of this process
    return float(np.dot(matrix, matrix)[0, 0])
