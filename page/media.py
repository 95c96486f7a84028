"""The box of the question's media: one picture, and below it what has been added to it.

A question is about one or several pictures, or about one video, of which frames are sampled.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from html import escape
from pathlib import Path

import gradio as gr
from gradio.utils import get_upload_folder, is_in_or_equal

from libra.errors import InputError
from libra.media import Clip, load_image, load_video, moves
from libra.trace import MAX_PICTURES, Trace
from libra.video import FRAMES, is_video
from page import engine, panels, texts, views
from page.errors import explained
from page.shown import Added, Shown

CHOICES = (4, 8, 16, 32)  # frames of a video
FILES = ["image", "video", ".mkv"]
SUFFIXES = (".avi", ".mkv", ".mov", ".mp4", ".webm")


@dataclass(frozen=True)
class MediaBox:
    """Components below the picture of the control."""

    picture: gr.Image
    strip: gr.HTML
    add: gr.UploadButton
    frames: gr.Radio

    @property
    def outputs(self) -> list[gr.components.Component]:
        """What `draw` fills."""
        return [self.picture, self.strip, self.frames]

    def draw(self, shown: Shown, alt: str = texts.PICTURE_ALT) -> dict:
        """The picture, and the strip of all of the media if there are several."""
        return {self.picture: gr.Image(shown.picture, alt_text=alt)} | self.draw_strip(shown)

    def draw_strip(self, shown: Shown) -> dict:
        """The strip without the picture above it."""
        several = bool(shown.added.pictures or shown.added.clip)
        return {self.strip: gr.HTML(strip(shown), visible=several)} | self.draw_frames(shown)

    def draw_frames(self, shown: Shown) -> dict:
        """The numbers of frames that the model has room for, if there is a video."""
        added, offered = shown.added, choices(shown.model)
        frames = added.frames or FRAMES
        chosen = frames if frames in offered else None  # another model had room for more
        return {self.frames: gr.Radio(offered, value=chosen, visible=bool(added.video))}

    def take(self, files: Sequence[str], shown: Shown) -> dict:
        """Add pictures to what is there; a video is left to `watch`."""
        with explained():
            if any(map(filmed, files)):
                if len(files) > 1:
                    raise InputError(texts.ONE_VIDEO)
                return gr.skip()
            there = [] if shown.added.clip else pictures(shown)
            if len(there) + len(files) > MAX_PICTURES:
                many = len(there) + len(files)
                raise InputError(texts.TOO_MANY_PICTURES.format(many, MAX_PICTURES))
            for file in files:
                check(file)
            lay_out(shown, [*there, *files])
            return self.draw(shown)

    def watch(self, files: Sequence[str], shown: Shown) -> dict:
        """Put a video in the place of what is there; pictures have been taken already."""
        if not filmed(files[0]):
            return gr.skip()
        with explained():
            film(shown, files[0], shown.added.frames or usual_frames(shown.model))
            tell(shown.added.clip)
            return self.draw(shown, texts.FIRST_FRAME)

    def sample(self, shown: Shown, frames: int) -> dict:
        """Take another number of frames from the video."""
        with explained():
            if frames not in choices(shown.model) or not shown.added.video:
                raise InputError(texts.NO_SUCH_FRAMES)
            film(shown, shown.added.video, frames)
            return self.draw_strip(shown)

    def drop(self, shown: Shown, event: gr.EventData) -> dict:
        """Take one picture out, or the video."""
        there = [] if shown.added.clip else pictures(shown)
        lay_out(shown, [file for i, file in enumerate(there) if i != event.index])
        return self.draw(shown)

    def clear(self, shown: Shown) -> dict:
        """The picture of the control was removed: the next one takes its place."""
        shown.removed = shown.picture
        lay_out(shown, shown.added.pictures)
        # an empty control is left alone: a file may be on its way into it
        return self.draw(shown) if shown.picture else self.draw_strip(shown)


def build(picture: gr.Image) -> MediaBox:
    """Place the strip, the button and the number of frames below a picture."""
    return MediaBox(
        picture=picture,
        strip=gr.HTML(js_on_load=panels.PICKS, visible=False, elem_id="media"),
        frames=gr.Radio(
            CHOICES,
            value=FRAMES,
            label=texts.FRAMES,
            info=texts.FRAMES_HELP,
            visible=False,
            elem_classes="segments",
            elem_id="sampling",
        ),
        add=gr.UploadButton(
            texts.ADD, file_count="multiple", file_types=FILES, size="sm", elem_id="add-media"
        ),
    )


def uploaded(file: dict | None) -> str | None:
    """The path of a file as a browser sends it; it may name what was uploaded or shown, no other.

    Gradio checks paths only where a browser marks them as files.
    """
    path = file and file.get("path")
    if path and not is_in_or_equal(path, get_upload_folder()):
        raise InputError(texts.NOT_UPLOADED)
    return path or None


def filmed(file: str) -> bool:
    """Whether a file is a video, or called like one: then it is told what is wrong with it."""
    return is_video(file) or Path(file).suffix.lower() in SUFFIXES


def check(file: str) -> None:
    """Raise what is wrong with a picture, and say if only a part of it is looked at."""
    load_image(file)
    if is_video(file):
        gr.Info(texts.MOVES)
    elif moves(file):
        gr.Info(texts.STANDS)


def tell(clip: Clip) -> None:
    """Say if a video was cut off."""
    if clip.note:
        gr.Warning(escape(clip.note, quote=False))  # it names a file, and is shown as HTML


def pictures(shown: Shown) -> list[str]:
    """All pictures of the question."""
    first = [shown.picture] if shown.picture else []
    return [*first, *shown.added.pictures]


def lay_out(shown: Shown, files: Sequence[str]) -> None:
    """Make these pictures those of the question."""
    first, *more = files or (None,)
    shown.picture, shown.added = first, Added(tuple(more))


def film(shown: Shown, file: str, frames: int) -> None:
    """Make a video that of the question."""
    clip = load_video(file, frames)
    shown.picture = views.save_png(clip.frames[0], clip.name)
    shown.added = Added(clip=clip, video=file, frames=frames)


def of_trace(trace: Trace) -> Added:
    """What a trace is about besides its first picture."""
    first, *more = (views.image(trace, i) for i in range(len(trace.images)))
    if trace.times is None:
        return Added(tuple(views.save_png(picture, "from-trace") for picture in more))
    clip = Clip([first, *more], trace.times, trace.times[-1], texts.TRACE_VIDEO)
    return Added(clip=clip)


def choices(model: str) -> list[int]:
    """The numbers of frames that a model has room for; it may be unknown yet."""
    most = engine.shape(model).most_frames if model else None
    return [n for n in CHOICES if n <= (most or CHOICES[-1])] or [CHOICES[0]]


def usual_frames(model: str) -> int:
    """How many of the offered numbers of frames a model is used to; it may be unknown yet."""
    most = engine.shape(model).frames if model else FRAMES
    return max(n for n in choices(model) if n <= max(most, CHOICES[0]))


def strip(shown: Shown) -> str:
    """All pictures, each with a button that takes it out; or the frames of the video."""
    clip = shown.added.clip
    if clip is not None:
        about = texts.CLIP.format(escape(clip.name), clip.duration, len(clip.frames))
        tiles = "".join(
            f"<li>{_thumbnail(views.data_url(views.shrunk(frame)))}<span>{time:.1f} s</span></li>"
            for frame, time in zip(clip.frames, clip.times, strict=True)
        )
        return f'<p class="note">{about} {_remove(0, texts.REMOVE_VIDEO)}</p><ul>{tiles}</ul>'
    there = pictures(shown)
    tiles = "".join(
        f"<li>{_thumbnail(_small(file))}{_remove(i, texts.REMOVE.format(i + 1))}</li>"
        for i, file in enumerate(there)
    )
    return f'<p class="note">{texts.SEVERAL.format(len(there))}</p><ul>{tiles}</ul>'


def _thumbnail(url: str) -> str:
    return f'<img src="{url}" alt="">'


def _remove(index: int, label: str) -> str:
    return (
        f'<button type="button" data-pick="{index}" aria-label="{label}" title="{label}">×</button>'
    )


@lru_cache(maxsize=256)
def _small(file: str) -> str:
    """A small picture of a file, whose content never changes."""
    return views.data_url(views.shrunk(load_image(file)))
