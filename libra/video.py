"""Videos to upright RGB frames, with limits and clear errors.

Decoders are large C programs that read what strangers send. They run in a process of their own
(`libra.decode_video`): one that crashes, hangs or wants too much memory takes no server with it,
and unlike a thread it can be stopped.
"""

from __future__ import annotations

import io
import json
import logging
import math
import os
import subprocess
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from libra.container import is_cut
from libra.errors import InputError, MediaWarning

FRAMES = 8
MAX_FRAMES = 64  # of one request, and so of a trace
MAX_BYTES = 200 * 2**20
MAX_PIXELS = 40_000_000
MAX_SECONDS = 3600
MAX_COUNT = 250_000  # frames in the file: an hour at 60 a second
SIDE = 1024  # pixels of a frame's longer side: models look at smaller ones
PATIENCE = 60  # seconds for one video
MEMORY = 4 * 2**30  # bytes of address space for one video

# What the first bytes have to be. Other things that the decoder would take, such as playlists,
# name further files.
SIGNATURES = ((4, b"ftyp"), (4, b"moov"), (4, b"mdat"), (4, b"wide"), (4, b"free"), (4, b"skip"))
SIGNATURES += ((0, b"\x1a\x45\xdf\xa3"), (8, b"AVI "), (0, b"GIF8"))
DECODER = Path(__file__).with_name("decode_video.py")

log = logging.getLogger(__name__)


@dataclass
class Clip:
    """Frames of a video."""

    frames: list[Image.Image]  # upright RGB
    times: list[float]  # seconds of each frame, ascending
    duration: float  # seconds
    name: str
    cut: bool = False  # whether the file lacks its end

    @property
    def note(self) -> str:
        """What is to be known of a video that was cut off; nothing of others."""
        if not self.cut:
            return ""
        return (
            f"{self.name} is cut off, and what is left ends at {self.duration:.1f} s: to ask about "
            "all of it, save or download it anew."
        )


def load_video(source: str | Path | Clip, frames: int = FRAMES, fps: float | None = None) -> Clip:
    """Frames of a video file: MP4, MOV, WebM, MKV, AVI or an animated GIF.

    Up to `frames` frames, equally far apart in time from the first to the last; a video of fewer
    gives all of them. With `fps`, that many a second, as long as `frames` are enough for it. The
    rotation that a phone notes down is applied, and sides above 1,024 pixels are scaled down.
    Frames that are missing or broken are replaced by the next one, or left out at the end: the
    times tell. A file that was cut off gives what it has, with a `MediaWarning`. A clip stays as
    it is.

    Raises:
        InputError: no path, no such file, over 200 MB, 40 megapixels, an hour, or a minute of
            decoding; damaged, without a picture, or not a video.
    """
    if isinstance(source, Clip):
        return source
    _check_sampling(frames, fps)
    path = _path(source)
    _check_file(path)
    request = {
        "path": str(path.resolve()),
        "frames": frames,
        "fps": fps,
        "side": SIDE,
        "max_pixels": MAX_PIXELS,
        "max_count": MAX_COUNT,
        "max_seconds": MAX_SECONDS,
        "max_memory": MEMORY,
    }
    header, arrays = _decode(request, path.name)
    pictures = [Image.fromarray(array) for array in arrays]
    clip = Clip(pictures, **header, name=path.name, cut=is_cut(path))
    if clip.note:
        warnings.warn(clip.note, MediaWarning, stacklevel=2)
    return clip


def _path(source: object) -> Path:
    try:
        return Path(source)
    except TypeError:
        raise InputError(
            f"A video must be a path, or a Clip of frames and their times, not "
            f"{type(source).__name__}."
        ) from None


def no_file(path: Path) -> InputError:
    """What to say of a file that is not there; addresses on the web are none."""
    if str(path).startswith(("http:/", "https:/")):
        return InputError(f"Nothing is fetched from the web: download {path.name} first.")
    return InputError(f"There is no file {path.name}. Check the path.")


def is_video(path: str | Path) -> bool:
    """Whether a file looks like a video, from its first bytes; a GIF does if it moves."""
    try:
        with Path(path).open("rb") as file:
            head = file.read(12)
        if not head.startswith(b"GIF8"):
            return _signed(head)
        with Image.open(path, formats=["GIF"]) as image:
            return image.is_animated
    except (OSError, SyntaxError, ValueError):
        return False


def _signed(head: bytes) -> bool:
    """Whether the first 12 bytes of a file are those of a video."""
    return any(head.startswith(mark, at) for at, mark in SIGNATURES)


def _check_sampling(frames: object, fps: object) -> None:
    if type(frames) is not int or not 1 <= frames <= MAX_FRAMES:
        raise InputError(f"The frames must be a whole number in 1..{MAX_FRAMES}, not {frames!r}.")
    number = isinstance(fps, int | float) and not isinstance(fps, bool)
    if fps is not None and not (number and 0 < fps < math.inf):
        raise InputError(f"The frames per second must be a number above 0, not {fps!r}.")


def _check_file(path: Path) -> None:
    """Raise InputError for what is no video file, or too large; reads a few bytes."""
    name = path.name
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(12)
    except FileNotFoundError:
        raise no_file(path) from None
    except OSError as error:
        raise InputError(f"{name} cannot be read: {error.strerror}.") from error
    if not size:
        raise InputError(f"{name} is empty (0 bytes). Choose another file.")
    if size > MAX_BYTES:
        raise InputError(
            f"{name} has {size / 2**20:,.0f} MB; at most {MAX_BYTES // 2**20} MB are possible. Cut "
            "out the part that you ask about, or save it smaller."
        )
    if not _signed(head):
        raise InputError(f"{name} is not a video that can be read. Use MP4, WebM, MOV, AVI or GIF.")


def _decode(request: dict, name: str) -> tuple[dict, list[np.ndarray]]:
    """What `libra.decode_video` answers: times and duration, and the frames."""
    try:
        done = subprocess.run(
            # -P: modules of this package must not stand in for those of Python
            [sys.executable, "-P", str(DECODER)],
            input=json.dumps(request).encode(),
            capture_output=True,
            timeout=PATIENCE,
            env=os.environ | {"OPENCV_FFMPEG_CAPTURE_OPTIONS": "protocol_whitelist;file"},
        )
    except subprocess.TimeoutExpired:
        raise InputError(
            f"Decoding {name} takes more than {PATIENCE} seconds. Cut out the part that you ask "
            "about, or save it smaller."
        ) from None
    if done.returncode:
        log.warning("decoding ended with %d: %s", done.returncode, done.stderr[-500:])
        raise InputError(
            f"{name} cannot be decoded: it is damaged, or needs too much memory. Save it anew, as "
            "MP4 (H.264) or WebM."
        )
    output = io.BytesIO(done.stdout)
    header = json.loads(output.readline())
    if "error" in header:
        raise InputError(f"{name} {header['error']}")
    return header, [np.load(output, allow_pickle=False) for _ in header["times"]]
