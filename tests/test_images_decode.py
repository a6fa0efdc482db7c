"""Decoding pictures: which pixels come out, and what is said of files that are broken."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageOps

from hf_tasks.errors import DataError
from hf_tasks.images.decode import load_rgb, load_rgb_fast, require_readable

ORIENTATION = 0x0112


def encoded(image: Image.Image, kind: str, **options) -> dict:
    """A row's picture, held as bytes."""
    stream = BytesIO()
    image.save(stream, kind, **options)
    return {"path": f"some.{kind.lower()}", "bytes": stream.getvalue()}


def blocks(*, width: int = 160, height: int = 96) -> Image.Image:
    """Random colours in blocks of 16, so that JPEG keeps them well."""
    colours = np.random.default_rng(0).integers(0, 256, (height // 16, width // 16, 3), dtype=np.uint8)
    return Image.fromarray(colours.repeat(16, axis=0).repeat(16, axis=1))


def with_orientation(number: int) -> dict:
    exif = Image.Exif()
    exif[ORIENTATION] = number
    return encoded(blocks(), "JPEG", exif=exif, quality=95)


def transparent_palette() -> dict:
    return encoded(blocks().quantize(16), "PNG", transparency=bytes(range(0, 160, 10)))


def half_transparent(mode: str) -> dict:
    image = blocks().convert(mode)
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return encoded(image, "PNG")


ORDINARY = {
    "rgb": lambda: encoded(blocks(), "PNG"),
    "gray": lambda: encoded(blocks().convert("L"), "PNG"),
    "palette": transparent_palette,
    "rgba": lambda: half_transparent("RGB"),
    "gray and alpha": lambda: half_transparent("L"),
    "cmyk": lambda: encoded(blocks().convert("CMYK"), "JPEG"),
    "one bit": lambda: encoded(blocks().convert("1"), "PNG"),
    "turned": lambda: with_orientation(6),
}


@pytest.mark.filterwarnings("ignore:Palette images with Transparency")
@pytest.mark.parametrize("make", ORDINARY.values(), ids=ORDINARY)
def test_pixels_are_those_of_the_plain_pipeline(make):
    picture = make()

    decoded = load_rgb(picture)

    plain = ImageOps.exif_transpose(Image.open(BytesIO(picture["bytes"]))).convert("RGB")
    np.testing.assert_array_equal(np.asarray(decoded), np.asarray(plain))


def test_sixteen_bit_gray_is_scaled_not_clipped():
    levels = np.array([[0, 128, 129, 257, 32896, 65535]], dtype=np.uint16)
    picture = encoded(Image.fromarray(levels), "PNG")

    decoded = np.asarray(load_rgb(picture))

    # level / 257, rounded
    assert decoded[0, :, 0].tolist() == [0, 0, 1, 1, 128, 255]
    assert (decoded == decoded[..., :1]).all()


def test_thirty_two_bit_gray_within_sixteen_bits_is_scaled_too():
    picture = encoded(Image.fromarray(np.array([[0, 65535]], dtype=np.int32)), "TIFF")

    decoded = np.asarray(load_rgb(picture))

    assert decoded[0, :, 0].tolist() == [0, 255]


@pytest.mark.parametrize(
    ("pixels", "reason"),
    [
        (np.array([[0.5]], dtype=np.float32), "real numbers of unknown range; save it with 8 or 16 bits"),
        (np.array([[-1, 70000]], dtype=np.int32), "gray levels reach from -1 to 70000"),
    ],
)
def test_pixels_of_unknown_range_are_refused_with_what_to_do(pixels, reason):
    picture = encoded(Image.fromarray(pixels), "TIFF")

    for read in (load_rgb, require_readable):
        with pytest.raises(DataError, match=f"some.tiff: not a usable picture: .*{reason}"):
            read(picture)


def test_of_several_frames_the_first_is_taken():
    first, second = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
    picture = encoded(first, "GIF", save_all=True, append_images=[second])

    decoded = load_rgb(picture)

    assert decoded.getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_fast_decoding_turns_a_picture_as_exact_decoding_does(orientation):
    picture = with_orientation(orientation)

    fast = load_rgb_fast(picture, shorter_side=96)

    np.testing.assert_allclose(fast.astype(int), np.asarray(load_rgb(picture)).astype(int), atol=2)


@pytest.mark.parametrize(
    ("shorter_side", "size"), [(96, (96, 160)), (48, (48, 80)), (13, (24, 40)), (1, (12, 20))]
)
def test_a_jpeg_is_reduced_as_far_as_the_shorter_side_allows(shorter_side, size):
    picture = encoded(blocks(), "JPEG", quality=95, subsampling=0)

    fast = load_rgb_fast(picture, shorter_side=shorter_side)

    assert fast.shape == (*size, 3)
    small = blocks().resize(size[::-1], Image.Resampling.BOX)
    assert np.abs(fast.astype(int) - np.asarray(small)).max() <= 4


def test_fast_decoding_of_other_formats_is_exact():
    picture = half_transparent("RGB")

    fast = load_rgb_fast(picture, shorter_side=1)

    np.testing.assert_array_equal(fast, np.asarray(load_rgb(picture)))


def test_bytes_padded_behind_the_end_of_a_jpeg_are_no_fault():
    picture = encoded(blocks(), "JPEG")
    padded = {**picture, "bytes": picture["bytes"] + bytes(500)}

    require_readable(padded)

    np.testing.assert_array_equal(
        load_rgb_fast(padded, shorter_side=96), np.asarray(load_rgb(picture)), strict=True
    )


@pytest.mark.parametrize("options", [{}, {"progressive": True}], ids=["baseline", "progressive"])
@pytest.mark.parametrize("share", [0.3, 0.5, 0.9, 0.99])
def test_a_jpeg_cut_anywhere_is_refused_not_painted_gray(share, options):
    picture = encoded(blocks(), "JPEG", quality=95, **options)
    cut = {"path": "cut.jpg", "bytes": picture["bytes"][: int(len(picture["bytes"]) * share)]}

    for read in (load_rgb, require_readable, lambda image: load_rgb_fast(image, shorter_side=16)):
        with pytest.raises(DataError, match=r"cut\.jpg: not a usable picture"):
            read(cut)


@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP", "TIFF", "WEBP"])
def test_other_formats_cut_in_half_are_refused(kind):
    picture = encoded(blocks(), kind)
    cut = {"path": "cut", "bytes": picture["bytes"][: len(picture["bytes"]) // 2]}

    for read in (load_rgb, require_readable):
        with pytest.raises(DataError, match="cut: not a usable picture"):
            read(cut)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"label,path\n", "the file is of no known picture format"),
        (encoded(blocks(), "JPEG")["bytes"][:900], "the file is cut off"),
        (None, "there is no such file"),
    ],
    ids=["empty", "text", "cut", "missing"],
)
def test_what_is_wrong_with_a_file_is_said_in_plain_words(tmp_path, content, reason):
    path = tmp_path / "flower"
    if content is not None:
        path.write_bytes(content)

    for read in (load_rgb, require_readable, lambda image: load_rgb_fast(image, shorter_side=16)):
        with pytest.raises(DataError, match=f"flower: not a usable picture: {reason}$"):
            read({"path": str(path), "bytes": None})


def test_a_row_without_path_and_bytes_is_refused():
    with pytest.raises(DataError, match=r"given as bytes: .* neither a path nor bytes"):
        load_rgb({"path": None, "bytes": None})
