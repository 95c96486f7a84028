"""Pictures from wherever they come to upright RGB, with limits and clear errors.

Videos: `libra.video`.
"""

import io
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from libra.errors import InputError, MediaWarning
from libra.video import Clip, load_video, no_file

__all__ = ["Clip", "Media", "Source", "load_image", "load_video", "moves"]

MAX_BYTES = 20 * 2**20
MAX_PIXELS = 40_000_000
MAX_ASPECT = 100  # models scale the shorter edge up: a longer strip would fill the memory
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")

Source = str | Path | bytes | Image.Image | np.ndarray | Tensor


@dataclass(frozen=True)
class Media:
    """What a question is about: still pictures, or the sampled frames of one video."""

    pictures: list[Image.Image]  # upright RGB
    times: list[float] | None = None  # of a video: the second of each frame

    def first(self, n: int) -> "Media":
        """The first `n` pictures or frames alone."""
        return Media(self.pictures[:n], self.times and self.times[:n])

    @property
    def is_video(self) -> bool:
        """Whether the pictures are the frames of one video."""
        return self.times is not None


def load_image(source: Source) -> Image.Image:
    """A picture as upright RGB: a path, the bytes of a file, a PIL image, a uint8 array or tensor.

    The content decides about the format, not the extension. EXIF rotation is applied, the first
    frame of an animation is taken, with a `MediaWarning`, transparency is laid over white, 16 bits
    are scaled to 8. Arrays and tensors are [H, W], [H, W, 3] or [H, W, 4].

    Raises:
        InputError: no such file, empty, over 20 MB or 40 megapixels, more than 100 times as long
            as wide, damaged, or not a picture.
    """
    name = Path(source).name if isinstance(source, str | Path) else "The picture"
    match source:
        case str() | Path():
            image = _open(_read(Path(source)), name)
        case bytes():
            image = _open(source, name)
        case np.ndarray():
            image = _from_array(source)
        case Tensor(dtype=torch.uint8):
            image = _from_array(source.numpy(force=True))
        case Image.Image():
            image = source
        case _:
            raise InputError(
                "A picture must be a path, bytes, a PIL image or an array of uint8, "
                f"not {type(source).__name__}."
            )
    _check_size(image, name)
    try:
        upright = _to_rgb(ImageOps.exif_transpose(image))
    except Exception as error:  # decoders raise whatever comes up in a damaged file
        raise InputError(
            f"{name} is damaged or cut off and cannot be read to its end. Save or download it anew."
        ) from error
    if image is not source and _moves(image):
        warnings.warn(
            f"{name} has more than one frame, and only the first is looked at: to ask about all of "
            "them, give it as a video, such as GIF or MP4.",
            MediaWarning,
            stacklevel=2,
        )
    return upright


def moves(path: str | Path) -> bool:
    """Whether a file that is a picture has frames after its first, which `load_image` leaves."""
    return _moves(_open(_read(Path(path)), Path(path).name))


def _moves(image: Image.Image) -> bool:
    """Whether there is a second frame; those of some photos are small copies of the first."""
    try:
        return image.format != "MPO" and getattr(image, "is_animated", False)
    except Exception:  # decoders raise whatever comes up in a damaged file
        return False


def _read(path: Path) -> bytes:
    """The bytes of a file that is there, is a file and is not too large."""
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise InputError(_too_many_bytes(path.name, size))
        return path.read_bytes()
    except FileNotFoundError:
        raise no_file(path) from None
    except OSError as error:
        raise InputError(f"{path.name or path} cannot be read: {error.strerror}.") from error


def _open(data: bytes, name: str) -> Image.Image:
    """The picture in `data`; only its header is read yet."""
    if not data:
        raise InputError(f"{name} is empty (0 bytes). Choose another file.")
    if len(data) > MAX_BYTES:
        raise InputError(_too_many_bytes(name, len(data)))
    try:
        with warnings.catch_warnings():  # our own limit is lower than the one PIL warns about
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError:
        raise InputError(_too_many_pixels(name, "far more pixels than allowed")) from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise InputError(
            f"{name} is not a picture that can be read. Use PNG, JPEG, WebP, GIF, BMP or TIFF."
        ) from error


def _from_array(array: np.ndarray) -> Image.Image:
    """The picture in a uint8 array."""
    shape = array.shape
    grey, colour = array.ndim == 2, array.ndim == 3 and shape[-1] in (3, 4)
    if array.dtype != np.uint8 or not (grey or colour) or 0 in shape:
        raise InputError(
            "A picture as an array must be uint8 of shape [H, W], [H, W, 3] or [H, W, 4], "
            f"not {array.dtype} of shape {list(shape)}."
        )
    return Image.fromarray(array)


def _check_size(image: Image.Image, name: str) -> None:
    """Refuse too many pixels and strips; needs the header alone."""
    width, height = image.size
    if width * height == 0:
        raise InputError(f"{name} has no pixels ({width} x {height}).")
    if width * height > MAX_PIXELS:
        raise InputError(_too_many_pixels(name, f"{width} x {height} pixels"))
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise InputError(
            f"{name} has {width} x {height} pixels: one side is more than {MAX_ASPECT} times the "
            "other. Crop it to the part you ask about."
        )


def _to_rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB, over white where the picture is transparent."""
    if image.mode.startswith("I") or image.mode == "F":
        image = _to_eight_bits(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Grey values of 16 or 32 bits or floats, scaled to 0..255; PIL itself would clip them."""
    value = np.nan_to_num(np.asarray(image, dtype=np.float64), posinf=0.0, neginf=0.0)
    white = 65535 if image.mode.startswith("I") else max(value.max(), 1.0)
    return Image.fromarray((value / white * 255).round().clip(0, 255).astype(np.uint8))


def _too_many_bytes(name: str, size: int) -> str:
    limit = MAX_BYTES // 2**20
    return f"{name} has {size / 2**20:.1f} MB; at most {limit} MB are possible. Make it smaller."


def _too_many_pixels(name: str, size: str) -> str:
    limit = MAX_PIXELS // 10**6
    return f"{name} has {size}; at most {limit} megapixels are possible. Make it smaller."
