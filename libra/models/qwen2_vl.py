"""Qwen2-VL: a vision transformer for pictures of any size, and a Qwen2 decoder with M-RoPE."""

from __future__ import annotations

from transformers import Qwen2VLForConditionalGeneration

from libra.models.qwen_vl import QwenVL


class Qwen2VL(QwenVL):
    """Qwen2-VL."""

    name = "qwen2_vl"
    model_class = Qwen2VLForConditionalGeneration
