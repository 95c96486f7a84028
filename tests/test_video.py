"""Videos of every format, and everything that can be wrong with them."""

import os
import struct
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from libra import container, video
from libra.errors import InputError, MediaWarning
from libra.media import load_image
from libra.video import Clip, load_video
from tests import clips
from tests.clips import number, numbered

EXAMPLES = Path(__file__).parents[1] / "assets" / "examples"
FORMATS = (".mp4", ".mov", ".webm", ".avi")


@pytest.fixture
def clip(tmp_path):
    """Write a video of numbered frames, ten a second."""

    def write(ending=".mp4", n=20, **options):
        return clips.write(tmp_path / f"clip{ending}", [*map(numbered, range(n))], **options)

    return write


def numbers(loaded: Clip) -> list[int]:
    return [number(frame) for frame in loaded.frames]


@pytest.mark.parametrize("ending", FORMATS)
def test_frames_are_equally_far_apart_in_every_format(clip, ending):
    loaded = load_video(clip(ending))
    expected = np.linspace(0, 19, 8).round().astype(int).tolist()
    assert numbers(loaded) == expected
    assert loaded.times == pytest.approx([i / 10 for i in expected])
    assert loaded.duration == pytest.approx(2)
    assert loaded.name == f"clip{ending}"
    assert all(f.mode == "RGB" and f.size == (clips.WIDTH, clips.HEIGHT) for f in loaded.frames)


@pytest.mark.parametrize("frames", [1, 8, 16, 32])
def test_as_many_frames_as_asked_for(clip, frames):
    loaded = load_video(clip(n=40), frames)
    assert numbers(loaded) == np.linspace(0, 39, frames).round().astype(int).tolist()


def test_colours_are_red_green_blue(tmp_path):
    red = np.zeros((64, 96, 3), np.uint8)
    red[..., 0] = 255
    (frame,) = load_video(clips.write(tmp_path / "red.mp4", [red])).frames
    assert np.abs(np.asarray(frame).mean((0, 1)) - [255, 0, 0]).max() < 10


def test_frames_a_second(clip):
    path = clip(n=30)
    assert numbers(load_video(path, 32, fps=2)) == [0, 5, 10, 15, 20, 25]
    assert len(load_video(path, 4, fps=2).frames) == 4  # too few for it: spread over the whole


def test_a_rate_above_the_video_s_own_repeats_nothing(clip):
    assert numbers(load_video(clip(n=6), 64, fps=30)) == list(range(6))


def test_far_frames_are_found_by_seeking(clip):
    loaded = load_video(clip(n=1200), 4)
    assert numbers(loaded) == [0, 400, 799, 1199]
    assert loaded.times == pytest.approx([0, 40, 79.9, 119.9])


def test_one_frame(clip):
    loaded = load_video(clip(n=1))
    assert (numbers(loaded), loaded.times) == ([0], [0.0])


def test_fewer_frames_than_asked_for(clip):
    assert numbers(load_video(clip(n=5))) == [0, 1, 2, 3, 4]


def test_an_animation_with_frames_of_different_length(tmp_path):
    path = tmp_path / "a.gif"
    clips.write_gif(path, [*map(numbered, range(12))], [100] * 10 + [1000] * 2)
    loaded = load_video(path, 3)
    assert loaded.times == pytest.approx([0, 1, 2])  # the middle in time, not in number
    assert numbers(loaded) == [0, 10, 11]


def test_a_gif_of_one_picture(tmp_path):
    Image.fromarray(numbered(7)).save(tmp_path / "a.gif")
    assert numbers(load_video(tmp_path / "a.gif")) == [7]


def test_variable_frame_rate(clip):
    path = clip(n=20)
    ticks = 1024  # of a frame at ten a second, as OpenCV writes it
    clips.hold(path, [(10, ticks), (10, 4 * ticks)])
    loaded = load_video(path, 20)
    assert numbers(loaded) == list(range(20))
    slow = [1 + 0.4 * i for i in range(10)]
    assert loaded.times == pytest.approx([i / 10 for i in range(10)] + slow)
    assert numbers(load_video(path, 3)) == [0, 13, 19]  # at 2.2 s: half of 4.6 s is 2.3 s


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_the_rotation_that_a_phone_notes_down(clip, degrees):
    loaded = load_video(clips.turn(clip(n=3), degrees))
    back = [frame.rotate(degrees, expand=True) for frame in loaded.frames]
    assert [number(frame) for frame in back] == [0, 1, 2]
    upright = (clips.WIDTH, clips.HEIGHT)
    assert loaded.frames[0].size == (upright if degrees == 180 else upright[::-1])


def test_large_frames_are_scaled_down(tmp_path):
    path = clips.write(tmp_path / "wide.mp4", [numbered(5, 1600, 400)])
    loaded = load_video(path)
    assert loaded.frames[0].size == (video.SIDE, video.SIDE // 4) and numbers(loaded) == [5]


def test_the_content_decides_about_the_format(clip, tmp_path):
    path = clip(".webm").rename(tmp_path / "-named picture.png")
    assert len(load_video(path).frames) == 8
    assert load_video(str(path)).name == "-named picture.png"


def test_a_clip_stays_as_it_is(clip):
    loaded = load_video(clip())
    assert load_video(loaded) is loaded


def test_a_film_of_the_examples():
    """A real film in VP8: the frames differ where something moves, and only there."""
    loaded = load_video(EXAMPLES / "burrow.webm")
    assert (len(loaded.frames), loaded.duration) == (8, 5.28)
    first, last = (np.asarray(loaded.frames[i]).astype(float) for i in (0, -1))
    moved = np.abs(first - last).mean(-1)
    rabbit, sky = moved[60:200, 80:240], moved[:60, -60:]
    assert rabbit.mean() > 20 > 8 > sky.mean()


def test_a_clip_of_a_real_photo(tmp_path):
    """A pan over the photo, in VP8; its colours stand for a real decoder at work."""
    with Image.open(EXAMPLES / "coffee.jpg") as photo:
        path = clips.pan(photo)
    loaded = load_video(clips.write(tmp_path / "pan.webm", path, 8))
    assert (len(loaded.frames), loaded.duration) == (8, 4.0)
    for frame, second in zip(loaded.frames, loaded.times, strict=True):
        expected = path[round(second * 8)].astype(float)
        assert np.abs(np.asarray(frame) - expected).mean() < 8
    assert np.abs(np.asarray(loaded.frames[0]) - expected).mean() > 20


# Damaged files


def test_a_webm_that_is_cut_off_gives_what_is_there(clip):
    path = clip(".webm", n=40)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    loaded = load_video(path, 4)
    shown = numbers(loaded)
    assert shown == sorted(set(shown)) and 2 <= len(shown) <= 4 and shown[-1] < 30
    assert loaded.times == pytest.approx([i / 10 for i in shown])


def test_an_mp4_without_its_end_cannot_be_read(clip):
    path = clip()
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InputError, match=r"clip\.mp4 has no video .* cut off.* Save it anew"):
        load_video(path)


@pytest.mark.parametrize("ending", FORMATS)
def test_broken_frames_never_get_in_the_way(clip, ending):
    path = clip(ending, n=40)
    data = bytearray(path.read_bytes())
    begin, end = len(data) * 4 // 10, len(data) * 5 // 10  # frames in every format
    data[begin:end] = bytes(end - begin)
    path.write_bytes(data)
    loaded = load_video(path)
    assert 2 <= len(loaded.frames) <= 8
    assert loaded.times == sorted(set(loaded.times))
    assert numbers(loaded)[0] == 0 and loaded.times[0] == 0


def test_sound_alone(clip):
    with pytest.raises(InputError, match="holds sound alone"):
        load_video(clips.silence(clip()))


@pytest.mark.parametrize("ending", FORMATS)
def test_no_frames(tmp_path, ending):
    code = cv2.VideoWriter_fourcc(*clips.CODECS[ending])
    path = tmp_path / f"a{ending}"
    cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, code, 10, (96, 64)).release()
    with pytest.raises(InputError, match=f"a{ending} has no (frames|video)"):
        load_video(path)


def test_noise_behind_the_mark_of_a_video(tmp_path):
    noise = np.random.default_rng(0).bytes(5000)
    marks = {"a.mp4": b"\0\0\0\x18ftypisom", "a.webm": b"\x1a\x45\xdf\xa3", "a.gif": b"GIF89a"}
    marks["a.avi"] = b"RIFF\0\0\0\0AVI "
    for name, mark in marks.items():
        (tmp_path / name).write_bytes(mark + noise)
        with pytest.raises(InputError, match=name):
            load_video(tmp_path / name)


# Videos that were cut off


@pytest.mark.parametrize("share", [0.5, 0.8, 0.99])
@pytest.mark.parametrize("ending", FORMATS)
def test_a_video_that_was_cut_off_says_so(clip, ending, share):
    path = clip(ending, n=100)
    clips.cut(clips.lead(path) if ending in (".mp4", ".mov") else path, share)
    with pytest.warns(
        MediaWarning, match=rf"^clip{ending} is cut off, .* ends at \d+\.\d s: .*anew"
    ):
        loaded = load_video(path)
    assert loaded.cut and len(loaded.times) > 4
    assert loaded.duration <= (10 if share > 0.9 else 9)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize("n", [1, 20])
def test_a_whole_video_says_nothing(clip, ending, n):
    assert load_video(clip(ending, n=n)).note == ""


@pytest.mark.filterwarnings("error")
def test_a_video_that_a_phone_has_trimmed_is_whole(clip):
    """Its frames are all in the file, and half of them are not to be shown."""
    path = clip(n=100)
    data = bytearray(path.read_bytes())
    (length,) = struct.unpack_from(">I", data, data.index(b"elst") + 12)
    struct.pack_into(">I", data, data.index(b"elst") + 12, length // 2)
    path.write_bytes(data)
    loaded = load_video(path)
    assert loaded.duration < 7 and not loaded.cut


@pytest.mark.filterwarnings("error")
def test_a_recording_that_does_not_know_its_length_is_whole(clip):
    path = clip(".webm", n=100)
    data = path.read_bytes()
    at = data.index(b"\x18\x53\x80\x67") + 4
    path.write_bytes(data[:at] + b"\x01" + b"\xff" * 7 + data[at + 8 : len(data) // 2])
    assert 1 < load_video(path).duration < 9


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", False),
        (b"\0\0\0\x08free", False),
        (b"\0\0\0\x09free", True),
        (b"\0\0\0\0mdat" + bytes(9), False),  # goes on to the end
        (b"\0\0\0\1mdat" + (17).to_bytes(8, "big"), True),
        (b"\0\0\0\1mdat" + (16).to_bytes(8, "big"), False),
        (b"\0\0\0\x08free" + bytes(99), False),  # padding
        (b"\x1a\x45\xdf\xa3", False),
        (b"\x1a\x45\xdf\xa3\x81\0\x18\x53\x80\x67\x82\0", True),
        (b"\x1a\x45\xdf\xa3\x81\0\x18\x53\x80\x67\x82\0\0", False),
        (b"\x1a\x45\xdf\xa3\0" + bytes(99), False),
        (b"GIF89a", False),
    ],
)
def test_where_files_have_to_end(tmp_path, data, expected):
    (tmp_path / "a").write_bytes(data)
    assert container.is_cut(tmp_path / "a") is expected


# What is no video


@pytest.mark.parametrize("source", [None, 3, b"...", ["a.webm"]])
def test_what_is_no_path(source):
    kind = type(source).__name__
    with pytest.raises(InputError, match=f"must be a path, or a Clip of frames .* not {kind}"):
        load_video(source)


def test_no_file(tmp_path):
    with pytest.raises(InputError, match=r"There is no file gone\.mp4"):
        load_video(tmp_path / "gone.mp4")


def test_a_folder(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        load_video(tmp_path)


def test_an_empty_file(tmp_path):
    (tmp_path / "a.mp4").touch()
    with pytest.raises(InputError, match="is empty"):
        load_video(tmp_path / "a.mp4")


@pytest.mark.parametrize(
    "content",
    [
        b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
        b"ffconcat version 1.0\nfile secret.mp4\n",
        b"<html></html>",
        b"\x89PNG\r\n\x1a\n0000",
        b"RIFF0000WAVEfmt ",
    ],
)
def test_playlists_sounds_and_pictures_are_no_videos(tmp_path, content):
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.mp4 is not a video .* Use MP4"):
        load_video(tmp_path / "a.mp4")


def test_a_video_is_no_picture(clip):
    with pytest.raises(InputError, match="is not a picture"):
        load_image(clip())


@pytest.mark.parametrize("ending", FORMATS)
def test_videos_are_told_from_pictures(clip, tmp_path, ending):
    assert video.is_video(clip(ending))
    clips.write_gif(tmp_path / "moves.gif", [numbered(0), numbered(1)], [100, 100])
    Image.fromarray(numbered(0)).save(tmp_path / "still.gif")
    Image.fromarray(numbered(0)).save(tmp_path / "still.webp")
    (tmp_path / "broken.gif").write_bytes(b"GIF89a")
    assert video.is_video(tmp_path / "moves.gif")
    for name in ("still.gif", "still.webp", "broken.gif", "gone.mp4"):
        assert not video.is_video(tmp_path / name)


# Limits


def test_too_many_bytes(clip, monkeypatch):
    path = clip()
    monkeypatch.setattr(video, "MAX_BYTES", path.stat().st_size)
    assert load_video(path).frames
    monkeypatch.setattr(video, "MAX_BYTES", path.stat().st_size - 1)
    with pytest.raises(InputError, match=r"MB are possible\. Cut out the part"):
        load_video(path)


@pytest.mark.parametrize(
    ("name", "limit", "message"),
    [
        ("MAX_PIXELS", clips.WIDTH * clips.HEIGHT, "96 x 64 pixels; at most .* Save it smaller"),
        ("MAX_SECONDS", 2, "minutes long; at most .* Cut out the part"),
        ("MAX_COUNT", 20, "has more than 19 frames. Cut out the part"),
    ],
)
def test_limits_hold_exactly(clip, monkeypatch, name, limit, message):
    path = clip(n=20)
    monkeypatch.setattr(video, name, limit)
    assert load_video(path).frames
    monkeypatch.setattr(video, name, limit - 1)
    with pytest.raises(InputError, match=message):
        load_video(path)


def test_three_hours_in_4k_are_refused_at_once(tmp_path):
    """Nothing of it is decoded to find out."""
    hour = 3600 * 10240  # ticks, as OpenCV writes them
    frames = [numbered(i, 3840, 2160) for i in range(3)]
    path = clips.hold(clips.write(tmp_path / "film.mp4", frames), [(3, hour)])
    with pytest.raises(InputError, match=r"^film\.mp4 is 180 minutes long; at most 60 are"):
        load_video(path)
    path.write_bytes(path.read_bytes() + bytes(video.MAX_BYTES))
    with pytest.raises(InputError, match=r"^film\.mp4 has 200 MB; at most 200 MB are possible"):
        load_video(path)


@pytest.mark.parametrize("frames", [0, -1, 65, 2.0, "8", True, None])
def test_numbers_of_frames_that_make_no_sense(clip, frames):
    with pytest.raises(InputError, match=r"frames must be a whole number in 1\.\.64"):
        load_video(clip(n=1), frames)


@pytest.mark.parametrize("fps", [0, -1, float("nan"), float("inf"), "1", True])
def test_rates_that_make_no_sense(clip, fps):
    with pytest.raises(InputError, match="frames per second"):
        load_video(clip(n=1), fps=fps)


# A decoder that misbehaves


def test_a_decoder_that_crashes(clip, decoder):
    decoder("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    with pytest.raises(InputError, match="cannot be decoded"):
        load_video(clip())


def test_a_decoder_that_hangs_is_stopped(clip, decoder, monkeypatch, tmp_path):
    decoder(
        "import os, pathlib, time\n"
        f"pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(os.getpid()))\n"
        "time.sleep(600)"
    )
    monkeypatch.setattr(video, "PATIENCE", 5)
    begin = time.monotonic()
    with pytest.raises(InputError, match="takes more than 5 seconds"):
        load_video(clip())
    assert time.monotonic() - begin < 60
    pid = (tmp_path / "pid").read_text()
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid), 0)


def test_a_video_that_wants_too_much_memory(clip, monkeypatch):
    monkeypatch.setattr(video, "MEMORY", 2**20)
    with pytest.raises(InputError, match=r"cannot be decoded: .* too much memory"):
        load_video(clip())
