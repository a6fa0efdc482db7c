"""A row's picture to RGB pixels: exact for validation, fast for training, and a check that it is whole."""

import os
import stat
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from hf_tasks.errors import DataError, UserError

# What Pillow's readers raise on files that are broken or not pictures.
BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    EOFError,
    RuntimeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)

# Pillow knows more; of those EPS starts another program, and none is what people photograph in.
Image.init()
KNOWN = ("AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
FORMATS = tuple(name for name in KNOWN if name in Image.OPEN)
# A file of a few kilobytes may declare any size; beyond these it is refused before it is decoded or read.
# Pillow's own figure, at which it only warns: RGB pixels of a quarter of a gibibyte.
MOST_PIXELS = 89_478_485
MOST_BYTES = 2**30

JPEG_FORMATS = ("JPEG", "MPO")
JPEG_END = b"\xff\xd9"

REDUCED_FLAGS = {
    8: cv2.IMREAD_REDUCED_COLOR_8,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    1: cv2.IMREAD_COLOR,
}

# Exif orientation to the turn that makes the picture upright; 1 is upright already.
UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda pixels: cv2.flip(pixels, 1),
    3: lambda pixels: cv2.rotate(pixels, cv2.ROTATE_180),
    4: lambda pixels: cv2.flip(pixels, 0),
    5: lambda pixels: cv2.transpose(pixels),
    6: lambda pixels: cv2.rotate(pixels, cv2.ROTATE_90_CLOCKWISE),
    7: lambda pixels: cv2.flip(cv2.transpose(pixels), -1),
    8: lambda pixels: cv2.rotate(pixels, cv2.ROTATE_90_COUNTERCLOCKWISE),
}


def load_rgb(image: Mapping[str, Any]) -> Image.Image:
    """Decode a picture exactly: upright, RGB, the first frame of several.

    Alpha is dropped, not blended, and palettes, CMYK and gray are converted as the image pipelines of
    transformers convert them, so that both see the same pixels. Only 16-bit gray differs: it is scaled
    to 8 bits, where Pillow would clip it.

    Args:
        image: a row's picture, `{"path": str | None, "bytes": bytes | None}`; bytes win over the path.

    Raises:
        DataError: the file is missing, empty, cut off, broken, too large or of real-valued pixels.
    """
    with _refusing_broken(image), _open(_read_bytes(image)) as opened:
        return _to_rgb(opened)


def load_rgb_fast(image: Mapping[str, Any], *, shorter_side: int) -> np.ndarray:
    """Decode a picture for training, at a fraction of its size where that is faster.

    Ordinary JPEG files are decoded at 1/2, 1/4 or 1/8 by OpenCV; all others as load_rgb does.

    Args:
        image: as for load_rgb.
        shorter_side: pixels that the shorter side keeps at least, where the picture has them.

    Returns:
        uint8 pixels of shape (height, width, 3), RGB, upright.

    Raises:
        DataError: as load_rgb.
    """
    with _refusing_broken(image):
        content = _read_bytes(image)
        with _open(content) as opened:
            if _is_ordinary_jpeg(opened, content):
                pixels = _decode_reduced(opened, content, shorter_side)
                if pixels is not None:
                    return pixels
            return np.array(_to_rgb(opened))


class SmallPicture(NamedTuple):
    """A picture decoded only as far as its likeness needs, and what its file says of it."""

    picture: Image.Image
    """RGB, upright; of a JPEG the smallest that its file gives that is not smaller than was asked for."""
    size: tuple[int, int]
    """(width, height) in the file, pixels."""
    format: str
    """Pillow's name of the format."""
    content: bytes
    """The file."""


def load_small(image: Mapping[str, Any], *, side: int) -> SmallPicture:
    """Decode a picture as cheaply as still finds every fault that load_rgb would find.

    Args:
        image: as for load_rgb.
        side: pixels that are needed of each side.

    Raises:
        DataError: as load_rgb.
    """
    with _refusing_broken(image):
        content = _read_bytes(image)
        with _open(content) as opened:
            size = opened.size
            if opened.format in JPEG_FORMATS and opened.mode in ("RGB", "L"):
                opened.draft(opened.mode, (side, side))
            return SmallPicture(_to_rgb(opened), size, str(opened.format), content)


def require_readable(image: Mapping[str, Any]) -> None:
    """Decode a picture as cheaply as still finds every fault that load_rgb would find.

    Args:
        image: as for load_rgb.

    Raises:
        DataError: as load_rgb.
    """
    with _refusing_broken(image), _open(_read_bytes(image)) as opened:
        if opened.format in JPEG_FORMATS:
            # All of the file is read, but only an eighth of the pixels is worked out, without colour.
            opened.draft("L", (1, 1))
            opened.getexif()
            opened.load()
        else:
            _to_rgb(opened)


def _read_bytes(image: Mapping[str, Any]) -> bytes:
    content: bytes | None = image["bytes"]
    if content is None:
        if image["path"] is None:
            raise ValueError("the row has neither a path nor bytes")
        _require_modest_file(image["path"])
        content = Path(image["path"]).read_bytes()
    if not content:
        raise ValueError("the file is empty")
    return content


def _require_modest_file(path: str) -> None:
    """Refuse what would be read without an end, such as a pipe, or into all of the memory."""
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
        raise ValueError("it is a device or a pipe, no file")
    if status.st_size > MOST_BYTES:
        raise ValueError(f"the file has {status.st_size:,} bytes, at most {MOST_BYTES:,} are read")


def _open(content: bytes) -> Image.Image:
    """The picture behind its header; nothing is decoded yet."""
    opened = Image.open(BytesIO(content), formats=FORMATS)
    width, height = opened.size
    if width * height > MOST_PIXELS:
        raise Image.DecompressionBombError
    return opened


def _to_rgb(opened: Image.Image) -> Image.Image:
    if opened.mode == "F":
        raise ValueError("its pixels are real numbers of unknown range; save it with 8 or 16 bits")
    # The colour that counts as transparent changes no pixel here, Pillow only warns of it.
    opened.info.pop("transparency", None)
    upright = ImageOps.exif_transpose(opened)
    if upright.mode.startswith("I"):
        upright = _to_eight_bits(upright)
    return upright.convert("RGB")


def _to_eight_bits(gray: Image.Image) -> Image.Image:
    levels = np.asarray(gray).astype(np.int64)
    if levels.min() < 0 or levels.max() > 65535:
        raise ValueError(
            f"its gray levels reach from {levels.min()} to {levels.max()}; save it with 8 or 16 bits"
        )
    return Image.fromarray(((levels * 255 + 32767) // 65535).astype(np.uint8))


def _is_ordinary_jpeg(opened: Image.Image, content: bytes) -> bool:
    # OpenCV paints what is missing of a cut file gray and says nothing; Pillow refuses it. The mark
    # cannot occur inside compressed pixels. Some cameras pad the file behind it.
    whole = JPEG_END in content[-32:]
    return opened.format in JPEG_FORMATS and opened.mode in ("RGB", "L") and whole


def _decode_reduced(opened: Image.Image, content: bytes, shorter_side: int) -> np.ndarray | None:
    reduction = next((by for by in (8, 4, 2) if min(opened.size) // by >= shorter_side), 1)
    flags = REDUCED_FLAGS[reduction] | cv2.IMREAD_IGNORE_ORIENTATION
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    if pixels is None:
        return None
    turn = UPRIGHT.get(opened.getexif().get(ExifTags.Base.Orientation, 1))
    return cv2.cvtColor(pixels if turn is None else turn(pixels), cv2.COLOR_BGR2RGB)


@contextmanager
def _refusing_broken(image: Mapping[str, Any]) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except BROKEN as error:
        name = image["path"] or "a picture given as bytes"
        raise DataError(f"{name}: not a usable picture: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "the file is of no known picture format"
    if isinstance(error, Image.DecompressionBombError):
        return f"it has more than {MOST_PIXELS:,} pixels; save it smaller"
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    if "truncated" in str(error).lower():
        return "the file is cut off"
    return str(error) or type(error).__name__
