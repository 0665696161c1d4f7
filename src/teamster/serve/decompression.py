# SPDX-License-Identifier: BSD-3-Clause
"""Bodies that clients have compressed."""

from __future__ import annotations

import zlib

from teamster.serve.errors import Malformed, TooLarge, UnknownType

_AUTO = 32 + zlib.MAX_WBITS  # of zlib: with the head of gzip, or its own


def decompressed(body: bytes, encoding: str, most_bytes: int) -> bytes:
    """A body as it was before.

    Args:
        body: whole.
        encoding: the header ``content-encoding``; empty for none.
        most_bytes: of the result: a few bytes can stand for many.

    Raises:
        UnknownType: it is neither gzip nor deflate.
        Malformed: it is not what it says.
        TooLarge: it stands for more.

    Example:
        >>> import gzip
        >>> decompressed(gzip.compress(b"[1]"), "gzip", 100)
        b'[1]'
    """
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise UnknownType(f"content-encoding {encoding} is not read: send gzip, deflate, or none")
    decoder = zlib.decompressobj(_AUTO)
    try:
        found = decoder.decompress(body, most_bytes + 1)
    except zlib.error as error:
        raise Malformed(f"content-encoding {encoding}: {error}") from None
    if len(found) > most_bytes:
        raise TooLarge(f"the body has more than {most_bytes} bytes, decompressed")
    if not decoder.eof:
        raise Malformed(f"content-encoding {encoding}: the body is cut off")
    return found
