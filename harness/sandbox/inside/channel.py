"""Frames over a pipe: eight bytes of length, then the content. Used by the processes inside the sandbox."""

import os

MOST_BYTES = 64 << 20

# The program under test may replace what is in `os`; these stay.
_read, _write = os.read, os.write


class Closed(Exception):
    """The other end is gone, or says what is no frame."""


def receive(descriptor: int) -> bytes:
    """Return the next frame; `Closed` where there is none."""
    length = int.from_bytes(_exactly(descriptor, 8), "big")
    if length > MOST_BYTES:
        raise Closed(f"a frame of {length} bytes")
    return _exactly(descriptor, length)


def send(descriptor: int, content: bytes) -> None:
    """Write one frame."""
    left = memoryview(len(content).to_bytes(8, "big") + content)
    while left:
        left = left[_write(descriptor, left) :]


def _exactly(descriptor: int, length: int) -> bytes:
    parts = []
    while length:
        part = _read(descriptor, min(length, 1 << 20))
        if not part:
            raise Closed("the end")
        parts.append(part)
        length -= len(part)
    return b"".join(parts)
