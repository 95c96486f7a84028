"""Files that are made only when somebody wants them: one hidden button hands all of them over."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import gradio as gr
from gradio.utils import get_upload_folder

from libra.errors import InputError

_PRESS = "() => requestAnimationFrame(() => document.querySelector('#made').click())"


def build() -> gr.DownloadButton:
    """Place the button; it is never seen."""
    return gr.DownloadButton("Save", visible="hidden", elem_id="made")


def hand_over(start: Callable, make: Callable, inputs, button: gr.DownloadButton, **how) -> None:
    """On the event `start`, save in the browser the file whose path `make` returns."""
    start(make, inputs, button, **how).success(None, None, None, js=_PRESS)


def new(name: str, kind: str, kinds: Sequence[str]) -> Path:
    """A place for a file of that name and kind, among those that the page clears away by age."""
    if kind not in kinds:
        raise InputError(f"This is saved as {', '.join(kinds)}, not as {kind!r}.")
    return Path(tempfile.mkdtemp(dir=get_upload_folder())) / f"{name}.{kind}"
