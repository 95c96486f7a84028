"""What went wrong, said on the page."""

from collections.abc import Iterator
from contextlib import contextmanager
from html import escape

import gradio as gr

from libra.errors import InputError

MOST = 1000  # characters of a message: it may quote what was sent, however long that is


@contextmanager
def explained() -> Iterator[None]:
    """Show an InputError as a message; whatever was on the page stays there."""
    try:
        yield
    except InputError as error:
        said = str(error)
        if len(said) > MOST:
            said = f"{said[:MOST]} …"
        message = escape(said, quote=False)  # it may quote a file name, and is shown as HTML
        raise gr.Error(message, print_exception=False) from error
