"""The embedded model: LLaVA-1.5's architecture and token geometry at a thousandth of its size."""

import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)

from tiny import objects, vocabulary
from tiny.scenes import GRID, PATCH, SIDE, Labels
from tiny.vocabulary import ID

WIDTH = 256
LAYERS = 8


def config(layers: int = LAYERS) -> LlavaConfig:
    """LLaVA-1.5's configuration: CLIP tower with CLS at 336 px, penultimate features, Llama."""
    vision = CLIPVisionConfig(
        hidden_size=192,
        intermediate_size=768,
        num_hidden_layers=6,
        num_attention_heads=4,
        image_size=SIDE,
        patch_size=PATCH,
        projection_dim=192,
    )
    text = LlamaConfig(
        vocab_size=len(vocabulary.WORDS),
        hidden_size=WIDTH,
        intermediate_size=640,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=8192,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        tie_word_embeddings=True,
        pad_token_id=ID[vocabulary.PAD],
        bos_token_id=ID[vocabulary.BOS],
        eos_token_id=ID[vocabulary.EOS],
    )
    return LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=ID[vocabulary.IMAGE],
        image_seq_length=GRID * GRID,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        tie_word_embeddings=True,
    )


def device() -> torch.device:
    """A GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def build(layers: int = LAYERS, seed: int = 0) -> LlavaForConditionalGeneration:
    """A fresh model, initialised so that matching words and reading positions is easy to learn."""
    torch.manual_seed(seed)
    model = LlavaForConditionalGeneration(config(layers)).float()
    with torch.no_grad():
        model.get_input_embeddings().weight.copy_(_word_table(seed))
        tower = model.model.vision_tower
        tower.embeddings.position_embedding.weight[1:] = _sincos(GRID, 192) * 0.5
        for layer in tower.encoder.layers:
            _content_matching(layer.self_attn, layer.self_attn.out_proj, gain=0.4)
        for layer in model.model.language_model.layers:
            _content_matching(layer.self_attn, layer.self_attn.o_proj, gain=0.3)
    return model


def _word_table(seed: int) -> Tensor:
    """Unit vectors; a plural leans on its singular, so that both match the same patches."""
    draw = torch.Generator().manual_seed(seed)
    table = F.normalize(torch.randn(len(ID), WIDTH, generator=draw), dim=-1)
    for name in objects.NAMES:
        if objects.plural(name) != name:
            own = table[ID[objects.plural(name)]]
            table[ID[objects.plural(name)]] = F.normalize(table[ID[name]] + 0.7 * own, dim=0)
    return table


def _content_matching(attention: nn.Module, output: nn.Module, gain: float) -> None:
    """Keys start equal to queries and outputs undo values: attention copies from what is alike."""
    width = output.weight.shape[0]
    nn.init.normal_(attention.q_proj.weight, std=0.08)
    attention.k_proj.weight.copy_(attention.q_proj.weight)
    turn = torch.linalg.qr(torch.randn(width, width)).Q
    attention.v_proj.weight.copy_(gain * turn)
    output.weight.copy_(gain * turn.T)


def _sincos(grid: int, width: int) -> Tensor:
    """Row and column as sines and cosines: `[grid * grid, width]`."""
    frequency = 100 ** -(torch.arange(width // 4) / (width // 4))
    wave = torch.arange(grid)[:, None] * frequency
    axis = torch.cat([wave.sin(), wave.cos()], -1)
    rows, columns = axis[:, None].expand(-1, grid, -1), axis[None].expand(grid, -1, -1)
    return torch.cat([rows, columns], -1).reshape(grid * grid, width)


def grow(model: LlavaForConditionalGeneration) -> LlavaForConditionalGeneration:
    """The same function with twice the decoder layers: each is followed by one that adds zero."""
    old = model.model.language_model.layers
    grown = LlavaForConditionalGeneration(config(2 * len(old))).float()
    state = {k: v for k, v in model.state_dict().items() if ".language_model.layers." not in k}
    grown.load_state_dict(state, strict=False)
    with torch.no_grad():
        for i, layer in enumerate(grown.model.language_model.layers):
            layer.load_state_dict(old[i // 2].state_dict())
            if i % 2:
                layer.self_attn.o_proj.weight.zero_()
                layer.mlp.down_proj.weight.zero_()
    return grown


class PatchCode(nn.Module):
    """What a projected patch should say: its object's word, colour, character, place and centre.

    The decoder learns to read it before there are pictures; the tower learns to write it.
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(seed + 1)
        table = _word_table(seed)

        def rows(words):
            return table[[ID[w] for w in words]]

        nothing = torch.zeros(1, WIDTH)
        self.register_buffer("nothing", F.normalize(torch.randn(1, WIDTH, generator=draw), dim=-1))
        self.register_buffer("middle", 1.5 * F.normalize(torch.randn(WIDTH, generator=draw), dim=0))
        self.register_buffer("names", torch.cat([rows(objects.NAMES), self.nothing]))
        self.register_buffer("colours", torch.cat([rows(objects.COLOURS), nothing]))
        self.register_buffer("characters", torch.cat([rows(objects.CHARACTERS), nothing]))
        axis = (torch.arange(GRID) + 0.5) / GRID * 2 - 1
        waves = torch.pi * torch.tensor([1.0, 2.0, 4.0, 8.0]) * axis[:, None] / 2
        axis = torch.cat([1.2 * axis[:, None], 0.3 * waves.sin(), 0.3 * waves.cos()], -1)
        place = torch.cat([axis[:, None].expand(-1, GRID, -1), axis[None].expand(GRID, -1, -1)], -1)
        turn = torch.linalg.qr(torch.randn(WIDTH, place.shape[-1], generator=draw)).Q
        self.register_buffer("place", place.reshape(GRID * GRID, -1) @ turn.T)

    @property
    def axis(self) -> Tensor:
        """[D] reads the share of a centre off a code, up to what else points that way."""
        return self.middle / self.middle.square().sum()

    def forward(self, name, colour, character, centre, place) -> Tensor:
        """Labels `[..., N]` (-1: nothing) at patches `place` `[..., N]` to codes `[..., N, D]`."""
        return (
            self.names[name]
            + self.colours[colour]
            + self.characters[character]
            + self.middle * centre[..., None]
            + self.place[place]
        )


def stack(labels: list[Labels]) -> dict[str, Tensor]:
    """Labels of several scenes as tensors `[B, GRID * GRID]`."""
    return {
        key: torch.from_numpy(np.stack([getattr(label, key).reshape(-1) for label in labels]))
        for key in ("name", "colour", "character", "centre")
    }


def image_processor() -> CLIPImageProcessorPil:
    """LLaVA-1.5's preprocessing: shortest edge to 336 px, centre crop, CLIP normalisation."""
    return CLIPImageProcessorPil(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}
    )


def save(model: LlavaForConditionalGeneration, folder: Path) -> None:
    """Write fp16 weights, tokenizer, chat template and processor for `from_pretrained`."""
    folder.mkdir(parents=True, exist_ok=True)
    model.half().save_pretrained(folder, max_shard_size="9MB")
    model.float()
    LlavaProcessor(
        image_processor=image_processor(),
        tokenizer=vocabulary.tokenizer(),
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=vocabulary.CHAT_TEMPLATE,
        image_token=vocabulary.IMAGE,
    ).save_pretrained(folder)
    rows = json.dumps(objects.catalogue(), ensure_ascii=False, indent=1)
    (folder / "objects.json").write_text(rows + "\n", encoding="utf-8")
