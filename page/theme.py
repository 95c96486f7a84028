"""The look of the page: colours, type, style sheet. Nothing is fetched from elsewhere."""

from pathlib import Path

import gradio as gr
from gradio.themes.utils.colors import Color
from gradio.themes.utils.fonts import LocalFont

STYLE = Path(__file__).with_name("style.css")
ICON = Path(__file__).with_name("favicon.svg")

# One accent, one neutral. Text on them meets AA (4.5:1) in both themes.
INDIGO = Color(
    name="indigo",
    c50="#f0f1fd",
    c100="#e2e4fb",
    c200="#c9cdf6",
    c300="#a8aef0",
    c400="#888fe8",
    c500="#666dda",
    c600="#4d52c4",
    c700="#3f439f",
    c800="#34377f",
    c900="#2c2f66",
    c950="#1b1c3f",
)
STONE = Color(
    name="stone",
    c50="#fafaf9",
    c100="#f3f3f1",
    c200="#e5e5e2",
    c300="#d3d3cf",
    c400="#a3a39e",
    c500="#73736e",
    c600="#565652",
    c700="#3c3c3a",
    c800="#262625",
    c900="#1b1b1a",
    c950="#121211",
)

# Where a field begins and ends meets AA as well (3:1 against it and the page).
EDGE, EDGE_DARK = "#8f8f8a", "#6b6b66"

# Gradio says this to screen readers where a task ends, and has no word for it in any language.
WORDS = gr.I18n(en={"common.complete": "Done"})

HEAD = '<meta name="color-scheme" content="light dark">'

# Runs with the header. Gradio follows the system's theme; what the visitor chose comes after that.
SCRIPT = Path(__file__).with_name("top.js").read_text("utf-8")


def theme() -> gr.themes.Base:
    """Neutral surfaces, one accent, the IBM Plex fonts that Gradio itself serves."""
    return gr.themes.Base(
        primary_hue=INDIGO,
        secondary_hue=INDIGO,
        neutral_hue=STONE,
        text_size=gr.themes.sizes.text_md,
        spacing_size=gr.themes.sizes.spacing_md,
        radius_size=gr.themes.sizes.radius_lg,
        # The semi-bold file that Gradio 6 brings lacks half of the alphabet; the bold one is whole.
        font=[LocalFont("IBM Plex Sans", weights=(400, 700)), "system-ui", "sans-serif"],
        font_mono=["ui-monospace", "Consolas", "monospace"],
    ).set(
        body_background_fill="*neutral_50",
        body_background_fill_dark="*neutral_950",
        body_text_color="*neutral_900",
        body_text_color_dark="*neutral_100",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_400",
        background_fill_primary="white",
        background_fill_primary_dark="*neutral_900",
        background_fill_secondary="*neutral_50",
        background_fill_secondary_dark="*neutral_950",
        border_color_primary="*neutral_200",
        border_color_primary_dark="*neutral_800",
        color_accent="*primary_600",
        color_accent_soft="*primary_50",
        color_accent_soft_dark="*primary_950",
        link_text_color="*primary_700",
        link_text_color_dark="*primary_300",
        link_text_color_hover="*primary_800",
        link_text_color_hover_dark="*primary_200",
        link_text_color_visited="*primary_700",
        link_text_color_visited_dark="*primary_300",
        block_background_fill="white",
        block_background_fill_dark="*neutral_900",
        block_border_width="0px",
        block_shadow="none",
        block_label_text_color="*neutral_700",
        block_label_text_color_dark="*neutral_200",
        block_title_text_color="*neutral_800",
        block_title_text_color_dark="*neutral_100",
        block_title_text_weight="600",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_400",
        block_padding="0px",
        layout_gap="14px",
        form_gap_width="0px",
        input_background_fill="white",
        input_background_fill_dark="*neutral_950",
        input_border_width="1px",
        input_border_color=EDGE,
        input_border_color_dark=EDGE_DARK,
        input_placeholder_color="*neutral_500",
        input_placeholder_color_dark="*neutral_400",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_dark="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_hover_dark="*primary_700",
        button_primary_text_color="white",
        button_primary_text_color_dark="white",
        button_secondary_background_fill="white",
        button_secondary_background_fill_dark="*neutral_900",
        button_secondary_background_fill_hover="*neutral_100",
        button_secondary_background_fill_hover_dark="*neutral_800",
        button_secondary_text_color="*neutral_900",
        button_secondary_text_color_dark="*neutral_100",
        button_secondary_border_color="*neutral_300",
        button_secondary_border_color_dark="*neutral_700",
        button_border_width="1px",
        button_primary_border_color="transparent",
        slider_color="*primary_600",
        slider_color_dark="*primary_400",
        checkbox_background_color_selected="*primary_600",
        checkbox_border_color_selected="*primary_600",
        checkbox_border_color=EDGE,
        checkbox_border_color_dark=EDGE_DARK,
    )
