"""Video files for the tests, written with OpenCV and PIL, and broken in chosen ways."""

import struct
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

WIDTH, HEIGHT, BITS = 96, 64, 12
CODECS = {".mp4": "mp4v", ".mov": "mp4v", ".webm": "VP80", ".avi": "MJPG"}


def numbered(number: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """A frame that shows its number as two rows of black and white blocks, uint8 [H, W, 3]."""
    bits = (number >> np.arange(BITS).reshape(2, -1)) & 1
    rows = np.arange(height) * 2 // height
    columns = np.arange(width) * (BITS // 2) // width
    return np.repeat(255 * bits[rows][:, columns, None], 3, axis=2).astype(np.uint8)


def number(frame: Image.Image) -> int:
    """The number that a frame shows."""
    blocks = np.asarray(frame.convert("L").resize((BITS // 2 * 3, 6), Image.Resampling.BOX))
    return int(((blocks[1::3, 1::3] > 127).ravel() << np.arange(BITS)).sum())


def write(path: Path, frames: Sequence[np.ndarray], fps: float = 10) -> Path:
    """A video of these frames in the format of the path's ending."""
    height, width = frames[0].shape[:2]
    code = cv2.VideoWriter_fourcc(*CODECS[path.suffix])
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, code, fps, (width, height))
    assert writer.isOpened()
    for frame in frames:
        writer.write(frame[..., ::-1])
    writer.release()
    return path


def write_gif(path: Path, frames: Sequence[np.ndarray], milliseconds: Sequence[int]) -> Path:
    """An animation in which each frame shows for a time of its own."""
    first, *rest = (Image.fromarray(frame) for frame in frames)
    first.save(path, save_all=True, append_images=rest, duration=list(milliseconds), loop=0)
    return path


def turn(path: Path, degrees: int) -> Path:
    """Note down in an MP4 file, as phones do, that players have to turn it clockwise."""
    cos, sin = {90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees]
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 4 + 40
    struct.pack_into(">4i", data, matrix, *(x << 16 for x in (cos, sin)), 0, -sin << 16)
    struct.pack_into(">i", data, matrix + 16, cos << 16)
    path.write_bytes(data)
    return path


def hold(path: Path, shares: Sequence[tuple[int, int]]) -> Path:
    """Give the frames of an MP4 file times of their own: (frames, ticks that each of them lasts).

    The table of durations grows, and so do the boxes around it; they come after the frames.
    """
    data = path.read_bytes()
    at = data.index(b"stts") - 4
    (size,) = struct.unpack_from(">I", data, at)
    table = struct.pack(">II", 0, len(shares)) + b"".join(struct.pack(">II", *s) for s in shares)
    box = struct.pack(">I4s", len(table) + 8, b"stts") + table
    changed = bytearray(data[:at] + box + data[at + size :])
    for name in (b"moov", b"trak", b"mdia", b"minf", b"stbl"):
        start = changed.rindex(name, 0, at) - 4
        (old,) = struct.unpack_from(">I", changed, start)
        struct.pack_into(">I", changed, start, old + len(box) - size)
    path.write_bytes(changed.replace(b"edts", b"free"))  # which cuts at the old duration
    return path


def lead(path: Path) -> Path:
    """Put the index of an MP4 file before its frames, as for the web: one cut off can be read."""
    data = path.read_bytes()
    at, first = data.index(b"moov") - 4, data.index(b"mdat") - 4
    index = bytearray(data[at:])
    offsets = index.index(b"stco") + 8
    (n,) = struct.unpack_from(">I", index, offsets)
    for place in range(offsets + 4, offsets + 4 + 4 * n, 4):
        (offset,) = struct.unpack_from(">I", index, place)
        struct.pack_into(">I", index, place, offset + len(index))
    path.write_bytes(data[:first] + index + data[first:at])
    return path


def cut(path: Path, share: float) -> Path:
    """Leave the first share of a file, as a download that broke off does."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def silence(path: Path) -> Path:
    """Call the only track of an MP4 file sound."""
    path.write_bytes(path.read_bytes().replace(b"vide", b"soun"))
    return path


def pan(photo: Image.Image, n: int = 32, share: float = 0.55, size: int = 240) -> list[np.ndarray]:
    """A camera that travels over a photo, from its upper left to its lower right corner."""
    side = round(min(photo.size) * share)
    frames = []
    for step in np.linspace(0, 1, n):
        left, top = (round(step * (length - side)) for length in photo.size)
        window = photo.convert("RGB").crop((left, top, left + side, top + side))
        frames.append(np.asarray(window.resize((size, size), Image.Resampling.LANCZOS)))
    return frames
