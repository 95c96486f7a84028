"""VideoLLaMA 2: CLIP or SigLIP, a connector that convolves space and time, Mistral or Qwen2."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool3d
from transformers import (
    AutoConfig,
    CLIPImageProcessorPil,
    PreTrainedConfig,
    SiglipImageProcessorPil,
)

from libra.errors import InputError
from libra.layout import TokenLayout
from libra.media import Media
from libra.models.features import Features
from libra.models.folder import load_image_processor, load_model, load_tokenizer
from libra.models.prepared import Prepared, Prompt
from libra.models.tower import TowerFamily
from libra.models.videollama2_model import (
    KEY_MAPPING,
    PADDING,
    VideoLlama2Mistral,
    VideoLlama2Qwen2,
)
from libra.trace import MAX_PICTURES

MODELS = {model.config_class.model_type: model for model in (VideoLlama2Mistral, VideoLlama2Qwen2)}
PROCESSORS = {
    "clip_vision_model": CLIPImageProcessorPil,
    "siglip_vision_model": SiglipImageProcessorPil,
}
PLACE = "<video>"  # what the published prompts write where the media stand; no token of its own
# The checkpoints over Mistral were trained with Llama 2's system prompt.
SYSTEM = (
    "<<SYS>>\nYou are a helpful, respectful and honest assistant. Always answer as helpfully as "
    "possible, while being safe.  Your answers should not include any harmful, unethical, racist, "
    "sexist, toxic, dangerous, or illegal content. Please ensure that your responses are socially "
    "unbiased and positive in nature.\nIf a question does not make any sense, or is not factually "
    "coherent, explain why instead of answering something not correct. If you don't know the "
    "answer to a question, please don't share false information.\n<</SYS>>"
)


class VideoLlama2(TowerFamily):
    """VideoLLaMA 2 and 2.1.

    The connector's convolution needs the whole grid, so nothing can be taken from the encoder.
    Methods at the connector act between its convolution and its MLP, slot by slot; what they know
    of the patches is the mean over those behind a token.

    A picture, like a video of one frame, is shown to the connector `num_frames` times.
    """

    name = "videollama2"
    counted = False  # its connector is none of those
    takes_video = True
    keeps_in_encoder = "the connector needs the whole grid of patches"

    def __init__(self, model, tokenizer, image_processor):
        self.tower_type = model.config.vision_config.model_type
        super().__init__(model, tokenizer, image_processor)
        self.connector = model.model.mm_projector

    @classmethod
    def load(cls, path: str, device: str, dtype: torch.dtype, attention: str) -> VideoLlama2:
        """Load a folder of the published kind, or from the hub.

        The weights are all there; configuration and image processor of the tower are where
        `mm_vision_tower` says, a hub id or another folder.
        """
        config = AutoConfig.from_pretrained(path, trust_remote_code=False)
        connector, tower = config.mm_projector_type, config.mm_vision_tower
        if connector not in PADDING:
            raise InputError(
                f"A VideoLLaMA 2 with a {connector} connector is not supported; supported are: "
                f"{', '.join(PADDING)}."
            )
        config.vision_config = _vision_config(tower)
        model_class = MODELS[config.model_type]
        processor_class = PROCESSORS[config.vision_config.model_type]
        processor = load_image_processor(processor_class, tower, "its vision tower")
        tokenizer, own = load_tokenizer(path), {"config": config, "key_mapping": KEY_MAPPING}
        model = load_model(model_class, path, device, dtype, attention, **own)
        return cls(model, tokenizer, processor)

    @property
    def frames(self) -> int:
        """As many as the checkpoint was trained with: 8 or 16."""
        return self.model.config.num_frames

    @property
    def decoder_layers(self) -> nn.ModuleList:
        """The layers of Mistral or Qwen2."""
        return self.model.model.layers

    def prepare(self, media: Media, pooled: bool = True) -> Prepared:
        """A slot of time per two frames, and in each a row and column per two of the patches."""
        clips = _clips(media)
        repeats = [self._repeats(clip) for clip in clips]
        firsts = [
            [min(first, len(clip) - 1) for first, _ in self.connector.cells(len(clip) * times)]
            for clip, times in zip(clips, repeats, strict=True)
        ]
        views = [clip[first] for clip, own in zip(clips, firsts, strict=True) for first in own]
        if len(views) > MAX_PICTURES:
            raise InputError(
                f"These make {len(views)} slots of time; at most {MAX_PICTURES} are possible: use "
                f"fewer pictures or frames."
            )
        slots = [self._slot(view.size, i, media.is_video) for i, view in enumerate(views)]
        n = len(slots[0])
        return Prepared(
            media=media,
            layout=TokenLayout.cat(slots),
            unit=torch.arange(len(slots)).repeat_interleave(n),
            patch=torch.arange(n).repeat(len(slots)),
            spans=[torch.ones(n * len(own), dtype=torch.bool) for own in firsts],
            views=views,
            times=[media.times[first] for first in firsts[0]] if media.is_video else None,
        )

    def _repeats(self, clip: Sequence) -> int:
        """How many times the connector is shown each frame."""
        return self.model.config.num_frames if len(clip) == 1 else 1

    def _slot(self, size: tuple[int, int], view: int, is_video: bool) -> TokenLayout:
        """The tokens of one slot of time: each over the patches that the convolution takes in."""
        crops = getattr(self.image_processor, "do_center_crop", False)
        patches = TokenLayout.square_crop(*(size if crops else (1, 1)), self.grid)
        box = patches.box.unflatten(0, self.grid)
        rows, columns = (torch.tensor(self.connector.cells(n)) for n in self.grid)
        row = torch.arange(len(rows)).repeat_interleave(len(columns))
        column = torch.arange(len(columns)).repeat(len(rows))
        first = box[rows[row, 0], columns[column, 0]]
        last = box[rows[row, 1] - 1, columns[column, 1] - 1]
        return TokenLayout(
            image=torch.full_like(row, view),
            frame=torch.full_like(row, view if is_video else 0),
            row=row,
            column=column,
            box=torch.cat([first[:, :2], last[:, 2:]], dim=1),
        )

    def tokens(self, features: Features, prepared: Prepared) -> Tensor:
        """[N, d] what the connector's convolution makes of the clips."""
        return self._mixed(features.hidden, prepared, self.connector.mix)

    def pack(self, patches: Sequence[Tensor], prepared: Prepared) -> Tensor:
        """The mean over the patches behind each token."""
        return self._mixed(patches, prepared, self._mean)

    def _mixed(self, patches: Sequence[Tensor], prepared: Prepared, mix) -> Tensor:
        """[T, C] of each frame -> `mix` of [frames, H, W, C] of each clip, one after the other."""
        frames, mixed = torch.stack(list(patches)).unflatten(1, self.grid), []
        for clip in _clips(prepared.media):
            own, frames = frames[: len(clip)], frames[len(clip) :]
            mixed.append(mix(own, self._repeats(clip)).flatten(0, 2))
        return torch.cat(mixed)

    def _mean(self, patches: Tensor, repeats: int) -> Tensor:
        """[T, H, W, C] -> [t, h, w, C]."""
        x = patches.repeat_interleave(repeats, dim=0).permute(3, 0, 1, 2)
        padding = self.connector.sampler[0].padding
        return avg_pool3d(x, 2, padding=padding, count_include_pad=False).permute(1, 2, 3, 0)

    def connect(self, tokens: Tensor) -> Tensor:
        """[n, d] -> [n, d]: the connector's MLP."""
        return self.connector.readout(tokens)

    def prompt(
        self, question: str, prepared: Prepared, history: Sequence[tuple[str, str]] = ()
    ) -> Prompt:
        """The question in the published format; text around the media is tokenised in pieces."""
        messages = [
            {"role": role, "content": words} for role, words in self.said(question, history)
        ]
        messages[0]["content"] = f"{PLACE}\n" * len(prepared.spans) + messages[0]["content"]
        if self.model.config.model_type == VideoLlama2Mistral.config_class.model_type:
            messages.insert(0, {"role": "system", "content": SYSTEM})
        text = self.tokenizer.apply_chat_template(
            messages,
            add_generation_prompt=True,
            tokenize=False,
        )
        place = self.model.config.video_token_id
        begin, *others = (
            self.tokenizer(piece, add_special_tokens=False).input_ids for piece in text.split(PLACE)
        )
        ids = begin + [i for piece in others for i in (place, *piece)]
        prompt = self.expand(torch.tensor(ids), "video", prepared)
        return replace(prompt, ids=prompt.ids.clamp(min=0))  # to be embedded, then overwritten


def _clips(media: Media) -> list[list]:
    """Frames that the connector mixes: those of the video, or each picture alone."""
    return [media.pictures] if media.is_video else [[picture] for picture in media.pictures]


def _vision_config(tower: str) -> PreTrainedConfig:
    """The configuration of the vision tower."""
    try:
        config = AutoConfig.from_pretrained(tower, trust_remote_code=False)
    except ValueError as error:  # a type that transformers does not know, or code
        raise InputError(f"A VideoLLaMA 2 over {tower} is not supported.") from error
    except OSError as error:
        raise InputError(
            f"The vision tower {tower} is not stored here and cannot be fetched: download it, or "
            f"set `mm_vision_tower` in the model's config.json to its folder."
        ) from error
    config = getattr(config, "vision_config", config)
    if config.model_type not in PROCESSORS:
        raise InputError(f"A VideoLLaMA 2 over {config.model_type} is not supported.")
    return config
