"""Whether a video file is all there, by the lengths that its outermost parts say they have.

What files say of their frames and seconds is no help: cameras that trim a video leave frames in it
that are not shown, rates vary, and sound may go on for longer.
"""

import os
from pathlib import Path
from typing import BinaryIO

MATROSKA, SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
HEAD = 256  # bytes that hold what stands before the segment of a Matroska or WebM file
BOXES = 10_000  # of an MP4 or MOV file are looked at


def is_cut(path: Path) -> bool:
    """Whether a video lacks its end, as after a download that broke off; of a GIF none can tell."""
    with path.open("rb") as file:
        head, size = file.read(HEAD), os.fstat(file.fileno()).st_size
        if head.startswith(b"GIF8"):
            return False
        if head.startswith(b"RIFF"):
            return 8 + int.from_bytes(head[4:8], "little") > size
        if head.startswith(MATROSKA):
            return _end_of_segment(head) > size
        return _end_of_boxes(file) > size


def _end_of_segment(head: bytes) -> int:
    """Where a Matroska or WebM file has to end; 0 if that is open, as in a live recording."""
    length, at = _number(head, len(MATROSKA))
    at += length or 0
    if head[at : at + len(SEGMENT)] != SEGMENT:
        return 0
    length, at = _number(head, at + len(SEGMENT))
    return 0 if length is None else at + length


def _number(data: bytes, at: int) -> tuple[int | None, int]:
    """A number of Matroska, whose first bits say how long it is, and where the next thing begins.

    All ones mean that nobody knows.
    """
    length = 9 - data[at].bit_length() if at < len(data) else 0
    value = int.from_bytes(data[at : at + length], "big") & ((1 << 7 * length) - 1)
    return (None if value == (1 << 7 * length) - 1 else value), at + length


def _end_of_boxes(file: BinaryIO) -> int:
    """Where the last box of an MP4 or MOV file has to end, one box being led to by the other."""
    end = 0
    for _ in range(BOXES):
        file.seek(end)
        head = file.read(16)
        length = int.from_bytes(head[8:16] if head[:4] == b"\0\0\0\1" else head[:4], "big")
        if not head[4:8].isalnum() or length < 8:  # one without a length goes on to the end
            break
        end += length
    return end
