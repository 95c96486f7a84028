"""Frames of one video, as a program of its own that `libra.video` starts, bounds and stops.

A request comes as JSON on standard input. On standard output: a line of JSON with the seconds of
the frames and the duration, or with what is wrong, then the frames as consecutive `.npy` arrays,
uint8 [H, W, 3]. It imports nothing of the package, so that it is there at once.
"""

import contextlib
import json
import math
import sys
from collections.abc import Iterator, Sequence

import cv2
import numpy as np

JUMP = 10.0  # seconds: a gap that is worth a seek instead of decoding what lies between
LEAD = 1.0  # how much earlier a seek aims, because seeks go by the mean frame rate
BROKEN = 100  # frames in a row that cannot be decoded: the end
SAME = 1e-4  # seconds between two readings of one frame's time


class Unusable(Exception):
    """The video cannot be used; the message says why and what to do."""


def timeline(request: dict) -> np.ndarray:
    """The seconds of every frame in the file, ascending: packets are counted, nothing is decoded.

    What a file says of its length and rate may be missing or wrong; its packets are what it has.
    """
    capture = cv2.VideoCapture(request["path"], cv2.CAP_FFMPEG, [cv2.CAP_PROP_FORMAT, -1])
    if not capture.isOpened():
        raise Unusable(
            "has no video that can be read: it is damaged, cut off, or holds sound alone. Save it "
            "anew, as MP4 (H.264) or WebM."
        )
    width, height = (
        int(capture.get(side)) for side in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
    )
    if width * height > request["max_pixels"]:
        limit = request["max_pixels"] // 10**6
        raise Unusable(
            f"has {width} x {height} pixels; at most {limit} megapixels are possible. Save it "
            "smaller."
        )
    times: list[float] = []
    while len(times) <= request["max_count"] and capture.grab():
        times.append(capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)
    if not times:
        raise Unusable("has no frames. Choose another video.")
    if len(times) > request["max_count"]:
        raise Unusable(
            f"has more than {request['max_count']:,} frames. Cut out the part that you ask about."
        )
    return np.unique(times)


def duration(times: np.ndarray) -> float:
    """From the first frame to the end of the last one, which shows for as long as the mean."""
    n = len(times)
    return float((times[-1] - times[0]) * n / max(1, n - 1))


def choose(times: np.ndarray, frames: int, fps: float | None) -> np.ndarray:
    """The moments to look at: `fps` a second where `frames` are enough for that, else uniform.

    Uniform means equally far apart in time, from the first frame to the last one; a video with no
    more than `frames` frames gives them all.
    """
    first, last = times[0], times[-1]
    if fps is not None and (last - first) * fps < frames:
        wanted = np.arange(first, last + SAME, 1 / fps)
    elif len(times) <= frames:
        return times
    else:
        wanted = np.linspace(first, last, frames)
    near = np.searchsorted((times[1:] + times[:-1]) / 2, wanted)
    return times[np.unique(near)]


def decode(path: str, moments: Sequence[float], side: int) -> Iterator[tuple[float, np.ndarray]]:
    """(seconds, pixels) of the frames at ascending moments, upright, no side above `side`.

    Where a frame is missing or broken, the next one that can be decoded stands in, once.
    """
    capture = cv2.VideoCapture(path, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 2])
    now = -1.0
    for moment in moments:
        if now > moment - SAME:
            continue
        if moment - now > JUMP:
            capture.set(cv2.CAP_PROP_POS_MSEC, (moment - LEAD) * 1000)
        while now < moment - SAME:
            now = _advance(capture)
        if now == math.inf:
            return
        there, frame = capture.retrieve()
        if there:
            yield now, _scaled(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), side)


def _advance(capture: cv2.VideoCapture) -> float:
    """Go to the next frame that can be decoded: its seconds; infinity where no more come."""
    for _ in range(BROKEN):
        if capture.grab():
            return capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
    return math.inf


def _scaled(frame: np.ndarray, side: int) -> np.ndarray:
    """The frame with its longer side at most `side` pixels."""
    height, width = frame.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return frame
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(frame, size, interpolation=cv2.INTER_AREA)


def run(request: dict) -> tuple[dict, list[np.ndarray]]:
    """The answer to a request: its JSON, and the frames."""
    times = timeline(request)
    length = duration(times)
    if length > request["max_seconds"]:
        raise Unusable(
            f"is {length / 60:.0f} minutes long; at most {request['max_seconds'] // 60} are "
            "possible. Cut out the part that you ask about."
        )
    moments = choose(times, request["frames"], request["fps"])
    decoded = list(decode(request["path"], moments, request["side"]))
    if not decoded:
        raise Unusable("has no frame that can be decoded. Save it anew, as MP4 (H.264) or WebM.")
    shown, frames = zip(*decoded, strict=True)
    return {"times": shown, "duration": length}, list(frames)


def limit_memory(size: int) -> None:
    """Let an attempt to take more than `size` bytes fail, where the system can."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource  # not on Windows

        resource.setrlimit(resource.RLIMIT_AS, (size, size))


def main() -> None:
    """Answer the request on standard input."""
    request = json.load(sys.stdin)
    limit_memory(request["max_memory"])
    try:
        header, frames = run(request)
    except Unusable as error:
        header, frames = {"error": str(error)}, []
    out = sys.stdout.buffer
    out.write(json.dumps(header).encode() + b"\n")
    for frame in frames:
        np.save(out, frame, allow_pickle=False)


if __name__ == "__main__":
    main()
