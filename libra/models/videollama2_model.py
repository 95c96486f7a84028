"""VideoLLaMA 2 as a model: vision tower, spatio-temporal convolution connector, language model.

Cheng et al., "VideoLLaMA 2", arXiv 2406.07476. The names of the weights are those of the published
checkpoints.
"""

from __future__ import annotations

from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedConfig,
    Qwen2Config,
    Qwen2ForCausalLM,
)

# What `TowerFamily` calls the tower's chosen layer.
ATTRIBUTES = {"vision_feature_layer": "mm_vision_select_layer"}
# The published folders keep the tower inside two wrappers.
KEY_MAPPING = {r"^model\.vision_tower\.vision_tower\.(vision_model\.)?": "model.vision_tower."}
PADDING = {"stc_connector": 1, "stc_connector_v35": 0}  # of the 3D convolution, by connector type


class ConvNorm(nn.Module):
    """A convolution without bias, layer norm over the channels, and SiLU if `active`."""

    def __init__(self, n_in: int, n_out: int, kernel: int = 1, groups: int = 1, active=True):
        super().__init__()
        self.conv = nn.Conv2d(n_in, n_out, kernel, padding=kernel // 2, groups=groups, bias=False)
        self.bn = nn.LayerNorm(n_out)  # so called in the checkpoints, though no batch norm
        self.active = active

    def forward(self, x: Tensor) -> Tensor:
        """[T, C, H, W] -> [T, C', H, W]."""
        x = self.bn(self.conv(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return nn.functional.silu(x) if self.active else x


class SqueezeExcite(nn.Module):
    """Weigh the channels of each frame by a gate of their means (Hu et al., arXiv 1709.01507)."""

    def __init__(self, channels: int, squeezed: int):
        super().__init__()
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[T, C, H, W] -> [T, C, H, W]."""
        mean = x.mean((2, 3), keepdim=True)
        return x * self.fc2(nn.functional.silu(self.fc1(mean))).sigmoid()


class RegBlock(nn.Module):
    """RegNet's Y block (Radosavovic et al., arXiv 2003.13678), depthwise: mixes space, not time."""

    def __init__(self, n_in: int, n_out: int):
        super().__init__()
        self.conv1 = ConvNorm(n_in, n_out)
        self.conv2 = ConvNorm(n_out, n_out, kernel=3, groups=n_out)
        self.se = SqueezeExcite(n_out, round(n_in / 4))
        self.conv3 = ConvNorm(n_out, n_out, active=False)
        self.downsample = (
            nn.Identity() if n_in == n_out else ConvNorm(n_in, n_out, active=False)
        )  # so called in the checkpoints: a shortcut, nothing is sampled down

    def forward(self, x: Tensor) -> Tensor:
        """[T, C, H, W] -> [T, C', H, W]."""
        mixed = self.conv3(self.se(self.conv2(self.conv1(x))))
        return nn.functional.silu(mixed + self.downsample(x))


class RegStage(nn.Module):
    """Four blocks, the first of which may change the width."""

    def __init__(self, n_in: int, n_out: int):
        super().__init__()
        for i, width in enumerate([n_in, n_out, n_out, n_out], 1):
            self.add_module(f"b{i}", RegBlock(width, n_out))

    def forward(self, x: Tensor) -> Tensor:
        """[T, C, H, W] -> [T, C', H, W]."""
        for block in self.children():
            x = block(x)
        return x


class STCConnector(nn.Module):
    """The spatio-temporal convolution connector (STC): halves time, height and width.

    Args:
        n_in: width of the tower's features.
        n_out: width of the language model.
        padding: zeros around time, height and width before the halving convolution.
    """

    def __init__(self, n_in: int, n_out: int, padding: int):
        super().__init__()
        self.s1 = RegStage(n_in, n_out)
        self.sampler = nn.Sequential(
            nn.Conv3d(n_out, n_out, kernel_size=2, stride=2, padding=padding), nn.SiLU()
        )
        self.s2 = RegStage(n_out, n_out)
        self.readout = nn.Sequential(nn.Linear(n_out, n_out), nn.GELU(), nn.Linear(n_out, n_out))

    def mix(self, features: Tensor, repeats: int = 1) -> Tensor:
        """Features of T frames [T, H, W, D] -> tokens [t, h, w, d], before the last MLP.

        Args:
            features: what the tower makes of the patches.
            repeats: how many times the clip shows each frame.
        """
        x = self.s1(features.permute(0, 3, 1, 2)).repeat_interleave(repeats, dim=0)
        x = self.sampler(x.transpose(0, 1)).transpose(0, 1)
        return self.s2(x).permute(0, 2, 3, 1)

    def cells(self, n: int) -> list[tuple[int, int]]:
        """Of `n` frames, rows or columns: the first and one past the last behind each token."""
        before = self.sampler[0].padding[0]
        starts = range(-before, n + before - 1, 2)
        return [(max(start, 0), min(start + 2, n)) for start in starts]


class VideoLlama2MistralConfig(MistralConfig):
    """Mistral's, with the keys `mm_*` of the published folders and the tower's configuration."""

    model_type = "videollama2_mistral"
    attribute_map = ATTRIBUTES
    vision_config: PreTrainedConfig | None = None  # theirs is with the tower, `mm_vision_tower`
    video_token_id: int = -1  # in no vocabulary


class VideoLlama2Qwen2Config(Qwen2Config):
    """Qwen2's, with the keys `mm_*` of the published folders and the tower's configuration."""

    model_type = "videollama2_qwen2"
    attribute_map = ATTRIBUTES
    vision_config: PreTrainedConfig | None = None
    video_token_id: int = -1


def _add_vision(model: nn.Module, config: PreTrainedConfig) -> None:
    """Give the language model its tower and connector, under the checkpoints' names."""
    vision = config.vision_config
    model.vision_tower = AutoModel.from_config(
        vision, attn_implementation=config._attn_implementation, trust_remote_code=False
    )
    padding = PADDING[config.mm_projector_type]
    model.mm_projector = STCConnector(vision.hidden_size, config.hidden_size, padding)


class VideoLlama2Mistral(MistralForCausalLM):
    """VideoLLaMA 2 over Mistral."""

    config_class = VideoLlama2MistralConfig

    def __init__(self, config: VideoLlama2MistralConfig):
        super().__init__(config)
        _add_vision(self.model, config)
        self.post_init()


class VideoLlama2Qwen2(Qwen2ForCausalLM):
    """VideoLLaMA 2 over Qwen2."""

    config_class = VideoLlama2Qwen2Config

    def __init__(self, config: VideoLlama2Qwen2Config):
        super().__init__(config)
        _add_vision(self.model, config)
        self.post_init()


for _config in (VideoLlama2MistralConfig, VideoLlama2Qwen2Config):
    AutoConfig.register(_config.model_type, _config, exist_ok=True)
