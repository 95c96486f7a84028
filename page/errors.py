"""What went wrong, said on the page."""

from collections.abc import Iterator
from contextlib import contextmanager
from html import escape

import gradio as gr

from libra.errors import InputError


@contextmanager
def explained() -> Iterator[None]:
    """Show an InputError as a message; whatever was on the page stays there."""
    try:
        yield
    except InputError as error:
        message = escape(str(error), quote=False)  # it may quote a file name, and is shown as HTML
        raise gr.Error(message, print_exception=False) from error
