import errno
import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from libra.errors import InputError, MediaWarning
from libra.media import load_image, load_video


def scene(width=8, height=6):
    """A red left half and a blue right half, with a green corner at the top left."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2, 0] = 255
    pixels[:, width // 2 :, 2] = 255
    pixels[0, 0] = (0, 255, 0)
    return Image.fromarray(pixels)


def encoded(image, form="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def same(image, expected, tolerance=0):
    assert image.mode == "RGB"
    assert image.size == expected.size
    difference = np.asarray(image).astype(int) - np.asarray(expected.convert("RGB")).astype(int)
    assert np.abs(difference).max() <= tolerance


def test_every_kind_of_source(tmp_path):
    path = tmp_path / "scene.png"
    scene().save(path)
    array = np.asarray(scene())
    sources = (str(path), path, path.read_bytes(), scene(), array, torch.tensor(array))
    for source in sources:
        same(load_image(source), scene())


@pytest.mark.parametrize(
    ("form", "tolerance"), [("PNG", 0), ("BMP", 0), ("TIFF", 0), ("PPM", 0), ("WEBP", 0)]
)
def test_lossless_formats(form, tolerance):
    options = {"lossless": True} if form == "WEBP" else {}
    same(load_image(encoded(scene(), form, **options)), scene(), tolerance)


def test_jpeg():
    flat = Image.new("RGB", (16, 16), (200, 40, 90))
    same(load_image(encoded(flat, "JPEG")), flat, tolerance=3)


def test_one_pixel():
    same(load_image(encoded(Image.new("RGB", (1, 1), "red"))), Image.new("RGB", (1, 1), "red"))


def test_a_strip_is_refused():
    with pytest.raises(InputError, match=r"20000 x 10 pixels: .* more than 100 times .* Crop it"):
        load_image(encoded(Image.new("RGB", (20000, 10))))
    assert load_image(encoded(Image.new("RGB", (1000, 10)))).size == (1000, 10)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(orientation):
    turned = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    stored = scene() if turned is None else scene().transpose(turned)
    exif = Image.Exif()
    exif[274] = orientation
    same(load_image(encoded(stored, "PNG", exif=exif)), scene())


def test_sixteen_bit_grey_is_scaled_not_clipped():
    grey = np.array([[0, 257 * 100, 65535]], np.uint16)
    image = load_image(encoded(Image.fromarray(grey)))
    assert np.asarray(image)[0, :, 0].tolist() == [0, 100, 255]


def test_thirty_two_bit_and_float_grey():
    wide = Image.fromarray(np.array([[0, 65535]], np.int32))
    assert np.asarray(load_image(wide))[0, :, 0].tolist() == [0, 255]
    share = Image.fromarray(np.array([[0.0, 0.5, 1.0, np.nan]], np.float32))
    assert np.asarray(load_image(share))[0, :, 0].tolist() == [0, 128, 255, 0]


def test_sixteen_bit_colour():
    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    row = b"\0" + struct.pack(">3H", 65535, 257 * 100, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0))
    png += chunk(b"IDAT", zlib.compress(row)) + chunk(b"IEND", b"")
    assert load_image(png).getpixel((0, 0)) == (255, 100, 0)


def test_cmyk():
    image = load_image(encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG"))
    red, green, blue = image.getpixel((8, 8))
    assert red > 240 and green < 15 and blue < 15


def test_transparency_lies_over_white():
    clear = Image.new("RGBA", (2, 1), (255, 0, 0, 255))
    clear.putpixel((1, 0), (0, 0, 0, 0))
    image = load_image(encoded(clear))
    assert [image.getpixel((x, 0)) for x in (0, 1)] == [(255, 0, 0), (255, 255, 255)]
    half = Image.new("LA", (1, 1), (0, 128))
    assert load_image(encoded(half)).getpixel((0, 0)) == (127, 127, 127)


def test_palette_with_and_without_transparency():
    palette = Image.new("P", (2, 1))
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.putpixel((1, 0), 1)
    plain = load_image(encoded(palette))
    assert [plain.getpixel((x, 0)) for x in (0, 1)] == [(255, 0, 0), (0, 0, 255)]
    clear = load_image(encoded(palette, transparency=1))
    assert [clear.getpixel((x, 0)) for x in (0, 1)] == [(255, 0, 0), (255, 255, 255)]


def test_black_and_white():
    assert load_image(encoded(Image.new("1", (3, 2), 1))).getpixel((2, 1)) == (255, 255, 255)


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP"])
def test_animation_gives_its_first_frame(form):
    first, second = (Image.new("RGB", (8, 8), c) for c in ("red", "blue"))
    options = {"lossless": True} if form == "WEBP" else {}
    film = encoded(first, form, save_all=True, append_images=[second], **options)
    assert Image.open(io.BytesIO(film)).n_frames == 2
    with pytest.warns(
        MediaWarning, match="^The picture has more than one frame, and only the first"
    ):
        same(load_image(film), first)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP", "TIFF"])
def test_a_picture_of_one_frame_says_nothing(form):
    load_image(encoded(scene(), form))
    load_image(
        Image.open(io.BytesIO(encoded(scene(), "GIF", save_all=True, append_images=[scene()])))
    )


@pytest.mark.filterwarnings("error")
def test_the_small_copy_in_a_photo_is_no_frame():
    photo = encoded(scene(), "MPO", save_all=True, append_images=[scene(4, 3)])
    assert Image.open(io.BytesIO(photo)).n_frames == 2
    assert load_image(photo).size == scene().size


def test_an_animation_whose_second_frame_is_damaged_has_a_first():
    film = encoded(scene(), "GIF", save_all=True, append_images=[scene().rotate(180)])
    second = film.rindex(b"\x2c")
    same(load_image(film[: second + 4]), load_image(encoded(scene(), "GIF")))


def test_the_content_decides_not_the_extension(tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(encoded(scene(), "PNG"))
    same(load_image(path), scene())


@pytest.mark.parametrize("content", [b"not a picture", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"\x89PNG"])
def test_a_file_that_is_no_picture(tmp_path, content):
    path = tmp_path / "picture.png"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"picture.png is not a picture .* Use PNG, JPEG"):
        load_image(path)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_truncated_files_are_refused(form, share):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    whole = encoded(Image.fromarray(noise), form)
    with pytest.raises(InputError, match=r"damaged or cut off|not a picture"):
        load_image(whole[: int(len(whole) * share)])


@pytest.mark.filterwarnings("ignore:Truncated File Read")
def test_damaged_bytes_never_escape_as_other_errors():
    random = np.random.default_rng(1)
    for form in ("PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP"):
        whole = np.frombuffer(encoded(scene(32, 32), form), np.uint8)
        for _ in range(40):
            hurt = whole.copy()
            hurt[random.integers(0, len(hurt), 4)] = random.integers(0, 256, 4)
            try:
                assert load_image(hurt.tobytes()).mode == "RGB"
            except InputError as error:
                assert str(error)


def test_empty_file(tmp_path):
    path = tmp_path / "empty.png"
    path.touch()
    with pytest.raises(InputError, match=r"empty.png is empty \(0 bytes\)"):
        load_image(path)
    with pytest.raises(InputError, match="is empty"):
        load_image(b"")


def test_no_such_file_and_a_folder(tmp_path):
    with pytest.raises(InputError, match=r"There is no file nothing\.png"):
        load_image(tmp_path / "nothing.png")
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        load_image(tmp_path)


def test_forbidden_file(tmp_path, monkeypatch):
    path = tmp_path / "secret.png"
    scene().save(path)

    def forbid(self):  # taking the rights away would not stop the superuser
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "read_bytes", forbid)
    with pytest.raises(InputError, match=r"secret\.png cannot be read: Permission denied"):
        load_image(path)


def test_too_many_bytes(tmp_path):
    path = tmp_path / "large.png"
    with path.open("wb") as file:
        file.truncate(20 * 2**20 + 1)
    for source in (path, path.read_bytes()):
        with pytest.raises(InputError, match="at most 20 MB are possible"):
            load_image(source)


def png_header(width, height):
    """A PNG that only claims its size: the check must not decode anything."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    return b"\x89PNG\r\n\x1a\n" + chunk + b"\0\0\0\0IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("side", [6400, 10_000, 60_000])
def test_too_many_pixels(side):
    with pytest.raises(InputError, match="at most 40 megapixels are possible"):
        load_image(png_header(side, side))


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4, 3)),
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros(4, np.uint8),
    ],
)
def test_arrays_that_are_no_picture(array):
    with pytest.raises(InputError, match="must be uint8 of shape"):
        load_image(array)


def test_grey_and_rgba_arrays():
    assert load_image(np.full((2, 3), 9, np.uint8)).getpixel((0, 0)) == (9, 9, 9)
    assert load_image(np.zeros((2, 3, 4), np.uint8)).getpixel((0, 0)) == (255, 255, 255)


def test_tensors_have_the_colours_last():
    with pytest.raises(
        InputError, match=r"must be uint8 of shape .* not uint8 of shape \[3, 8, 8\]"
    ):
        load_image(torch.zeros(3, 8, 8, dtype=torch.uint8))
    with pytest.raises(InputError, match="an array of uint8, not Tensor"):
        load_image(torch.zeros(4, 4, 3))


@pytest.mark.parametrize("load", [load_image, load_video])
@pytest.mark.parametrize("address", ["https://example.org/a/b.png", "http://example.org/b.png"])
def test_nothing_is_fetched(load, address):
    with pytest.raises(InputError, match=r"Nothing is fetched from the web: download b\.png"):
        load(address)


def test_no_name_is_no_picture():
    with pytest.raises(InputError, match=r"^\. cannot be read"):
        load_image("")


def test_anything_else_is_refused():
    with pytest.raises(
        InputError, match="must be a path, bytes, a PIL image or an array of uint8, not NoneType"
    ):
        load_image(None)


def test_the_source_is_left_alone():
    image = Image.new("RGBA", (3, 2), (1, 2, 3, 0))
    load_image(image)
    assert image.mode == "RGBA" and image.getpixel((0, 0)) == (1, 2, 3, 0)
