"""A picture in any shape gives the pixels that a viewer shows, by numpy's account, or one line with its name."""

import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from pmexp.datasets.pictures import Pictures
from pmexp.errors import UserError

Pixels = NDArray[np.uint8]
Shape = Callable[[np.random.Generator, int, int], tuple[bytes, Pixels]]  # a file, and what a viewer shows


def png(values: NDArray[Any], depth: int, colour: int, width: int | None = None, **chunks: bytes) -> bytes:
    """A PNG of (height, samples a row), written here. width: pixels, where rows are packed bits."""
    rows = values.astype(">u2" if depth == 16 else "u1")
    samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    size = (width or values.shape[1] // samples, len(rows))
    parts = [(b"IHDR", struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, 0))]
    parts += [(name.encode(), data) for name, data in chunks.items()]
    parts += [(b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in parts
    )


def tiff(values: NDArray[Any], samples: int, photometric: int, kind: int = 1, big: bool = False) -> bytes:
    """An uncompressed TIFF of one strip. kind: 1 unsigned, 2 signed, 3 floating-point."""
    order, height, width = ">" if big else "<", values.shape[0], values.shape[1] // samples
    data = values.astype(values.dtype.newbyteorder(order)).tobytes()
    bits, count = values.itemsize * 8, 9
    after = 8 + 2 + 12 * count + 4
    bits_at = after if samples > 2 else None
    place = after + (2 * samples if bits_at else 0)
    tags = [
        (256, 3, 1, width), (257, 3, 1, height), (258, 3, samples, bits_at or bits), (259, 3, 1, 1),
        (262, 3, 1, photometric), (273, 4, 1, place), (277, 3, 1, samples), (279, 4, 1, len(data)), (339, 3, 1, kind),
    ]  # fmt: skip
    head = (b"MM" if big else b"II") + struct.pack(f"{order}HIH", 42, 8, count)
    for tag, size, number, value in tags:
        packed = struct.pack(f"{order}H2x" if size == 3 and number == 1 else f"{order}I", value)
        head += struct.pack(f"{order}HHI", tag, size, number) + packed
    extra = struct.pack(f"{order}{samples}H", *[bits] * samples) if bits_at else b""
    return head + b"\0\0\0\0" + extra + data


def by_pillow(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def grey(values: NDArray[Any]) -> Pixels:
    return np.repeat(values.astype(np.uint8)[:, :, None], 3, axis=2)


def over_white(colours: NDArray[Any], alpha: NDArray[Any]) -> Pixels:
    share = alpha[:, :, None].astype(float) / 255
    return np.rint(colours * share + 255 * (1 - share)).astype(np.uint8)


def draw(rng: np.random.Generator, *shape: int, top: int = 256) -> NDArray[Any]:
    return rng.integers(0, top, shape)


def grey_png(depth: int) -> Shape:
    def make(rng: np.random.Generator, h: int, w: int) -> tuple[bytes, Pixels]:
        values = draw(rng, h, w, top=2**depth)
        return png(values, depth, 0), grey(values >> (depth - 8))

    return make


def rgb16_png(rng: np.random.Generator, h: int, w: int) -> tuple[bytes, Pixels]:
    values = draw(rng, h, w, 3, top=65536)
    return png(values.reshape(h, -1), 16, 2), (values >> 8).astype(np.uint8)


def alpha_png(depth: int) -> Shape:
    def make(rng: np.random.Generator, h: int, w: int) -> tuple[bytes, Pixels]:
        values = draw(rng, h, w, 4, top=2**depth)
        shown = values >> (depth - 8)
        return png(values.reshape(h, -1), depth, 6), over_white(shown[:, :, :3], shown[:, :, 3])

    return make


def grey_alpha_png(rng: np.random.Generator, h: int, w: int) -> tuple[bytes, Pixels]:
    values = draw(rng, h, w, 2)
    return png(values.reshape(h, -1), 8, 4), over_white(grey(values[:, :, 0]), values[:, :, 1])


def grey_key_png(depth: int) -> Shape:
    """One value of grey is transparent."""

    def make(rng: np.random.Generator, h: int, w: int) -> tuple[bytes, Pixels]:
        values = draw(rng, h, w, top=2**depth)
        key = int(values[0, 0])
        shown = np.where(values == key, 255, values >> (depth - 8))
        return png(values, depth, 0, tRNS=struct.pack(">H", key)), grey(shown)

    return make


def palette_png(transparent: bool) -> Shape:
    def make(rng: np.random.Generator, h: int, w: int) -> tuple[bytes, Pixels]:
        values, colours, alpha = draw(rng, h, w, top=16), draw(rng, 16, 3), draw(rng, 16)
        chunks: dict[str, bytes] = {"PLTE": colours.astype(np.uint8).tobytes()}
        if transparent:
            chunks["tRNS"] = alpha.astype(np.uint8).tobytes()
        shown = over_white(colours[values], alpha[values] if transparent else np.full((h, w), 255))
        return png(values, 8, 3, **chunks), shown

    return make


def bilevel_png(rng: np.random.Generator, h: int, w: int) -> tuple[bytes, Pixels]:
    values = draw(rng, h, w, top=2)
    return png(np.packbits(values.astype(bool), axis=1), 1, 0, width=w), grey(values * 255)


def grey_tiff(dtype: str, photometric: int = 1, big: bool = False) -> Shape:
    def make(rng: np.random.Generator, h: int, w: int) -> tuple[bytes, Pixels]:
        bits = np.dtype(dtype).itemsize * 8
        values = draw(rng, h, w, top=2**bits).astype(dtype)
        shown = values >> (bits - 8)
        return tiff(values, 1, photometric, big=big), grey(shown if photometric else 255 - shown)

    return make


def rgb16_tiff(rng: np.random.Generator, h: int, w: int) -> tuple[bytes, Pixels]:
    values = draw(rng, h, w, 3, top=65536).astype(np.uint16)
    return tiff(values.reshape(h, -1), 3, 2), (values >> 8).astype(np.uint8)


def cmyk_tiff(rng: np.random.Generator, h: int, w: int) -> tuple[bytes, Pixels]:
    values = draw(rng, h, w, 4)
    ink = 1 - values / 255
    shown = np.rint(255 * ink[:, :, :3] * ink[:, :, 3:]).astype(np.uint8)
    return tiff(values.astype(np.uint8).reshape(h, -1), 4, 5), shown


def cmyk_jpeg(rng: np.random.Generator, h: int, w: int) -> tuple[bytes, Pixels]:
    """One colour, which survives JPEG."""
    c, m, y, k = (int(value) for value in draw(rng, 4))
    shown = np.rint([(255 - ink) * (255 - k) / 255 for ink in (c, m, y)]).astype(np.uint8)
    file = by_pillow(Image.new("CMYK", (w, h), (c, m, y, k)), "JPEG", quality=100)
    return file, np.broadcast_to(shown, (h, w, 3))


def turned(kind: str, **options: Any) -> Shape:
    """The camera was held otherwise: each of EXIF's eight orientations undone by hand."""
    upright: dict[int, Callable[[Pixels], Pixels]] = {
        1: lambda p: p, 2: lambda p: p[:, ::-1], 3: lambda p: p[::-1, ::-1], 4: lambda p: p[::-1],
        5: lambda p: p.transpose(1, 0, 2), 6: lambda p: np.rot90(p, -1),
        7: lambda p: p[::-1, ::-1].transpose(1, 0, 2), 8: lambda p: np.rot90(p),
    }  # fmt: skip

    def make(rng: np.random.Generator, h: int, w: int) -> tuple[bytes, Pixels]:
        stored = draw(rng, h, w, 3).astype(np.uint8)
        orientation = int(rng.integers(1, 9))
        exif = Image.Exif()
        exif[274] = orientation
        return by_pillow(Image.fromarray(stored), kind, exif=exif, **options), upright[orientation](stored)

    return make


def frames(kind: str, mode: str, **options: Any) -> Shape:
    """Several frames or pages, of which the first is shown."""

    def make(rng: np.random.Generator, h: int, w: int) -> tuple[bytes, Pixels]:
        pages = [Image.fromarray(draw(rng, h, w).astype(np.uint8)).convert(mode) for _ in range(3)]
        first = np.asarray(pages[0].convert("RGB"))
        return by_pillow(pages[0], kind, save_all=True, append_images=pages[1:], **options), first

    return make


def plain(kind: str, mode: str, **options: Any) -> Shape:
    def make(rng: np.random.Generator, h: int, w: int) -> tuple[bytes, Pixels]:
        values = draw(rng, h, w, *([3] if mode == "RGB" else [])).astype(np.uint8)
        return by_pillow(Image.fromarray(values), kind, **options), values if mode == "RGB" else grey(values)

    return make


def pgm16(rng: np.random.Generator, h: int, w: int) -> tuple[bytes, Pixels]:
    values = draw(rng, h, w, top=65536)
    return f"P5 {w} {h} 65535\n".encode() + values.astype(">u2").tobytes(), grey(values >> 8)


SHAPES: dict[str, Shape] = {
    "grey png": grey_png(8), "16-bit grey png": grey_png(16), "16-bit rgb png": rgb16_png,
    "rgba png": alpha_png(8), "16-bit rgba png": alpha_png(16), "grey with alpha": grey_alpha_png,
    "grey with a key": grey_key_png(8), "16-bit grey with a key": grey_key_png(16),
    "palette": palette_png(False), "palette with alpha": palette_png(True), "one bit": bilevel_png,
    "tiff": grey_tiff("u1"), "16-bit tiff": grey_tiff("u2"), "16-bit big-endian tiff": grey_tiff("u2", big=True),
    "white is zero": grey_tiff("u1", 0), "16-bit, white is zero": grey_tiff("u2", 0), "16-bit rgb tiff": rgb16_tiff,
    "cmyk tiff": cmyk_tiff, "cmyk jpeg": cmyk_jpeg, "turned png": turned("PNG"), "turned tiff": turned("TIFF"),
    "turned webp": turned("WEBP", lossless=True), "gif": frames("GIF", "L"), "pages": frames("TIFF", "RGB"),
    "apng": frames("PNG", "RGB"), "moving webp": frames("WEBP", "RGB", lossless=True), "bmp": plain("BMP", "RGB"),
    "ppm": plain("PPM", "RGB"), "16-bit pgm": pgm16, "jpeg 2000": plain("JPEG2000", "RGB", irreversible=False),
}  # fmt: skip


@pytest.mark.parametrize("name", SHAPES)
@given(height=st.integers(1, 9), width=st.integers(1, 9), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=15, deadline=None)
def test_a_picture_is_what_a_viewer_shows(name: str, height: int, width: int, seed: int) -> None:
    data, shown = SHAPES[name](np.random.default_rng(seed), height, width)
    picture = Pictures([{"bytes": data, "path": None}])[0]
    assert picture.dtype == np.uint8 and picture.shape == shown.shape
    rounding = 1 if "alpha" in name or "rgba" in name or "cmyk" in name else 0
    assert np.abs(picture.astype(int) - shown).max() <= rounding + 2 * (name == "cmyk jpeg")


WHOLE = by_pillow(Image.effect_noise((64, 64), 80), "PNG")
BROKEN = {
    "truncated png": WHOLE[: len(WHOLE) // 2],
    "truncated jpeg": by_pillow(Image.effect_noise((64, 64), 80), "JPEG")[:1500],
    "empty": b"",
    "a page of html": b"<!doctype html><title>404</title>",
    "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n",
    "floating-point tiff": tiff(np.ones((2, 2), np.float32), 1, 1, kind=3),
    "32-bit tiff": tiff(np.ones((2, 2), np.int32), 1, 1, kind=2),
    "signed 16-bit tiff": tiff(np.ones((2, 2), np.int16), 1, 1, kind=2),
    "a decompression bomb": png(np.zeros((60_000, 1)), 8, 0, width=60_000),
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
def test_a_picture_that_cannot_be_shown_is_one_line_with_its_name(data: bytes, tmp_path: Path) -> None:
    file = tmp_path / "a [b]*?.jpg"
    file.write_bytes(data)
    for pictures, name in (
        (Pictures([str(file)]), str(file)),
        (Pictures([{"bytes": data, "path": "b.jpg"}]), "b.jpg"),
    ):
        with pytest.raises(UserError, match="cannot be decoded") as said:
            pictures[0]
        assert name in str(said.value) and "\n" not in str(said.value)


@pytest.mark.parametrize("source", [None, {"bytes": None, "path": None}])
def test_a_row_without_a_picture_is_named(source: Any) -> None:
    with pytest.raises(UserError, match=r"^picture 1 \(None\): cannot be decoded .*the row has no picture"):
        Pictures([{"bytes": WHOLE, "path": None}, source])[1]
