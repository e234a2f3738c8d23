"""Reads one image as uint8 pixels [H, W, C], by Pillow.

An image may come from anywhere, so only formats in wide use are opened, and its size is checked
before it is decoded: a file of a few kilobytes can hold billions of pixels.
"""

import io
import warnings
from pathlib import Path
from types import ModuleType

import numpy as np

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "PPM", "TIFF")
MODES = {1: "L", 3: "RGB"}  # channels → how Pillow calls them
MOST_BYTES = 1 << 28  # of a file


class Unreadable(ValueError):
    """A file that cannot be used; the message says why."""


def pillow() -> ModuleType:
    """The package; ValueError, with the remedy, if it is not installed."""
    try:
        import PIL.Image
        import PIL.ImageDraw
        import PIL.ImageOps
    except ImportError:
        raise ValueError("images need the package pillow; pip install 'isoflop[images]'") from None
    return PIL


def raw_bytes(path: Path) -> bytes:
    """The content of a file; Unreadable if there is none, or too much. A bucket that does not
    answer is no fault of the file: its TimeoutError passes through."""
    try:
        if (size := path.stat().st_size) > MOST_BYTES:
            raise Unreadable(f"it has {size:,} bytes, more than {MOST_BYTES:,}")
        if not size:
            raise Unreadable("it is empty")
        return path.read_bytes()
    except TimeoutError:
        raise
    except OSError as error:
        raise Unreadable(error.strerror or str(error)) from None


def pixels(raw: bytes, shape: tuple[int, int, int], max_pixels: int) -> np.ndarray:
    """The image in a file's bytes as uint8 [H, W, C] = `shape`, scaled to it if it has another
    size. Of an animation, the first picture. What is transparent becomes white. Unreadable for
    damaged files, unknown formats and more than `max_pixels` pixels, which are not decoded."""
    PIL = pillow()
    height, width, channels = shape
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)
            image = PIL.Image.open(io.BytesIO(raw), formats=FORMATS)
            if image.width * image.height > max_pixels:
                raise Unreadable(_too_large(f"{image.width} × {image.height}", max_pixels))
            image = PIL.ImageOps.exif_transpose(image)
            image = _eight_bits(image).convert(MODES[channels])
            if image.size != (width, height):
                image = image.resize((width, height), PIL.Image.Resampling.BILINEAR)
            return np.asarray(image, np.uint8).reshape(shape)
    except Unreadable:
        raise
    except PIL.Image.DecompressionBombError:
        raise Unreadable(_too_large("far too many", max_pixels)) from None
    except PIL.UnidentifiedImageError:
        raise Unreadable(f"it is not an image of the formats {', '.join(FORMATS)}") from None
    except Exception as error:  # Pillow's decoders raise any type on damaged files
        said = str(error).encode("unicode_escape").decode()[:120]
        raise Unreadable(f"it is damaged ({said})") from None


def _too_large(size: str, max_pixels: int) -> str:
    return f"it has {size} pixels, more than data.max_pixels={max_pixels:,}"


def _eight_bits(image):
    """The image without transparency, in 8 bits: `convert` would clip 16 bits to white."""
    PIL = pillow()
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        return PIL.Image.fromarray((values.clip(0, 65535) >> 8).astype(np.uint8))
    if image.mode == "F":
        raise Unreadable("its pixels are real numbers; convert it to 8 bits")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = PIL.Image.new("RGBA", image.size, (255, 255, 255, 255))
        return PIL.Image.alpha_composite(white, image)
    return image
