"""The inspector: one interactive view of where every visual token went, and why.

`view` turns traces into plain data, `component` is the page's side of it (markup, style and script
for one `gr.HTML`), and `export_html` writes both into a single file that works offline. `pane` and
`pane_component` are its card alone, for the pointer over a picture that stands elsewhere.
`save_animation` writes the tokens' way through the stages as a GIF or WebP.
"""

from viz.inspector.animation import FORMATS, save_animation
from viz.inspector.data import view
from viz.inspector.export import component, document, export_html
from viz.inspector.pane import pane, pane_component

__all__ = [
    "FORMATS",
    "component",
    "document",
    "export_html",
    "pane",
    "pane_component",
    "save_animation",
    "view",
]
