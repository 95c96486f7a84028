"""Gradio's blocks, with its updates of `gr.HTML` mended."""

from typing import Any

import gradio as gr


class Page(gr.Blocks):
    """Blocks in which a step of an event changes nothing of a component that it leaves out.

    Gradio takes the mark of an update for one more property of an HTML component's template, and a
    browser replaces all such properties at once. A scrubber that is just coming up when a step
    leaves it out would lose its strip, and a template without its properties never recovers.
    """

    async def postprocess_data(self, *args, **kwargs) -> list[Any]:
        """What goes to the browser, one entry per output."""
        data = await super().postprocess_data(*args, **kwargs)
        for update in data:
            if isinstance(update, dict) and update.get("__type__") == "update":
                _unmark(update)
        return data


def _unmark(update: dict) -> None:
    """Take the mark out of the template's properties of an update, and them if it was alone."""
    properties = update.get("props")
    if isinstance(properties, dict):
        properties.pop("__type__", None)
        if not properties:
            del update["props"]
