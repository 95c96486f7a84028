"""Figures: pure functions of a `Trace`, drawn with PIL and matplotlib, without a model.

Picture overlays return a `PIL.Image.Image`, charts a matplotlib `Figure`. `FIGURES` lists what one
trace gives; `save` writes either kind.
"""

from viz.accuracy import accuracy, accuracy_against_flops
from viz.agreement import agreement_map
from viz.attention_matrix import attention_matrix
from viz.cls import cls_distribution
from viz.compensation import compensation_lens
from viz.costs import cost_bars
from viz.encoder import encoder_attention
from viz.export import FORMATS, save
from viz.fates import fate_map
from viz.groups import group_map
from viz.heads import attention_heads
from viz.heat import attention_row, heat_map, heat_scale
from viz.heat_panels import attention_per_word, attention_through_layers
from viz.intervals import interval_strip
from viz.masks import merging_masks
from viz.numbers import NUMBERS
from viz.paper import compare_merging, selected_through_model, selected_tokens
from viz.registry import FIGURES, FigureSpec
from viz.retention import retention
from viz.sampling import sampling_panel
from viz.selection import selected
from viz.similarity import similarity_histogram
from viz.staircase import staircase
from viz.strip import strips, token_strip
from viz.times import time_shares

__all__ = [
    "FIGURES",
    "FORMATS",
    "NUMBERS",
    "FigureSpec",
    "accuracy",
    "accuracy_against_flops",
    "agreement_map",
    "attention_heads",
    "attention_matrix",
    "attention_per_word",
    "attention_row",
    "attention_through_layers",
    "cls_distribution",
    "compare_merging",
    "compensation_lens",
    "cost_bars",
    "encoder_attention",
    "fate_map",
    "group_map",
    "heat_map",
    "heat_scale",
    "interval_strip",
    "merging_masks",
    "retention",
    "sampling_panel",
    "save",
    "selected",
    "selected_through_model",
    "selected_tokens",
    "similarity_histogram",
    "staircase",
    "strips",
    "time_shares",
    "token_strip",
]
