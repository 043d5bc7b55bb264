"""Images of examples: brought to the node's disk, each checked by its bytes before anything else is done with it.

An image is a data URI, an s3:// object or an https:// URL that the class's `sources` allow. Its bytes decide what it
is: JPEG, PNG or WEBP, no larger than MOST_BYTES and MOST_PIXELS, and whole. What is kept fits into a square of
HIGH_DETAIL_SIDE pixels (LOW_DETAIL_SIDE with `detail: low`), as OpenAI's service scales it, so that the memory of a
batch is bounded.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from finetune_api.conditions import Reason
from finetune_api.sources import is_allowed, is_allowed_url, parse_s3
from finetune_trainer.data.images.public_https import PublicHttps, RefusedError
from finetune_trainer.data.read.examples import ChatExample, Example
from finetune_trainer.data.read.messages import ImageUrl
from finetune_trainer.process.failures import DiagnosedError, first_line
from finetune_trainer.storage.storage import Storage

if TYPE_CHECKING:
    from PIL import Image

Item = TypeVar("Item")

MOST_BYTES = 10 * 1024 * 1024  # of one image, as OpenAI's service has it
MOST_PIXELS = 50_000_000  # a file of a few kilobytes can hold billions
FORMATS = ("JPEG", "PNG", "WEBP")
HIGH_DETAIL_SIDE = 2048  # pixels
LOW_DETAIL_SIDE = 512
ASKED_SIDE = 1024
PARALLEL_IMAGES = 8
EXAMPLES_AHEAD = 8


class ImageError(ValueError):
    """What is wrong with an image, in a sentence."""


@dataclass(frozen=True)
class ImageStore:
    """Images as files in a folder; one that several examples name is fetched once.

    `sources`: patterns of the s3:// and https:// URLs that may be read (the class's sources.datasets and
    sources.images).
    """

    directory: Path
    storage: Storage
    sources: tuple[str, ...]
    web: PublicHttps = field(default_factory=PublicHttps)

    def keep(self, image: ImageUrl) -> Path:
        """The file of an image, which is fetched and checked unless it is there.

        Raises ImageError; DiagnosedError when the storage fails.
        """
        file = self.directory / hashlib.sha256(f"{image.detail}:{image.url}".encode()).hexdigest()
        if not file.exists():
            body = self._read(image.url)
            with IN_FLIGHT.holding(pixels_of(body)):
                kept = fit(decode(body), LOW_DETAIL_SIDE if image.detail == "low" else HIGH_DETAIL_SIDE)
            self.directory.mkdir(parents=True, exist_ok=True)
            partial = file.with_suffix(f".{id(kept)}")
            kept.save(partial, "PNG", compress_level=1)
            partial.rename(file)
        return file

    def keep_all(self, example: Example) -> list[Path]:
        """The files of an example's images, in order. Raises ImageError that says which image it is."""
        return self.keep_each(images_of(example))

    def keep_each(self, images: Sequence[ImageUrl]) -> list[Path]:
        """The files of images. Raises ImageError that says which image it is."""
        files = []
        for number, image in enumerate(images, start=1):
            try:
                files.append(self.keep(image))
            except ImageError as error:
                raise ImageError(f"Image {number} ({_shown(image.url)}): {error}.") from error
        return files

    def ahead(
        self, items: Iterable[Item], example_of: Callable[[Item], Example]
    ) -> Iterator[tuple[Item, Future[list[Path]]]]:
        """The items, whose examples have images; those of the next few are fetched meanwhile."""
        waiting: deque[tuple[Item, Future[list[Path]]]] = deque()
        with ThreadPoolExecutor(PARALLEL_IMAGES, thread_name_prefix="images") as pool:
            try:
                for item in items:
                    waiting.append((item, pool.submit(self.keep_all, example_of(item))))
                    if len(waiting) > EXAMPLES_AHEAD:
                        yield waiting.popleft()
                while waiting:
                    yield waiting.popleft()
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _read(self, url: str) -> bytes:
        if url.startswith("data:"):
            return _inline(url)
        if url.startswith("https://"):
            try:
                return self.web.get(url, allowed=self._allows_url, most_bytes=MOST_BYTES)
            except RefusedError as error:
                raise ImageError(str(error)) from error
        if not is_allowed(url, self.sources):
            raise ImageError("the class's sources.datasets do not allow it")
        return self._read_stored(url)

    def _allows_url(self, url: str) -> bool:
        return is_allowed_url(url, self.sources)

    def _read_stored(self, url: str) -> bytes:
        try:
            body = self.storage.read_range(parse_s3(url), 0, MOST_BYTES + 1, missing=Reason.DATASET_NOT_FOUND)
        except ValueError as error:
            raise ImageError(str(error)) from error
        except DiagnosedError as error:
            if error.failure.reason is Reason.DATASET_NOT_FOUND:
                raise ImageError("nothing is there") from error
            raise
        if len(body) > MOST_BYTES:
            raise ImageError(_TOO_LARGE)
        return body


_TOO_LARGE = f"it has more than {MOST_BYTES // 2**20} MB"


def images_of(example: Example) -> list[ImageUrl]:
    """The images of an example, in the order in which the model sees them."""
    return example.images() if isinstance(example, ChatExample) else []


class PixelsInFlight:
    """How many pixels all threads decode at a time: a few kilobytes can hold as many as take 200 MB. Thread-safe."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = 0
        self._changed = threading.Condition()

    @contextmanager
    def holding(self, pixels: int) -> Iterator[None]:
        """Wait until there is room for so many; one image alone always has it."""
        with self._changed:
            self._changed.wait_for(lambda: self._held == 0 or self._held + pixels <= self._most)
            self._held += pixels
        try:
            yield
        finally:
            with self._changed:
                self._held -= pixels
                self._changed.notify_all()


IN_FLIGHT = PixelsInFlight(MOST_PIXELS)


def pixels_of(body: bytes) -> int:
    """The pixels that a file says it has; 0 if it is not an image, or larger than what is decoded."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(body), formats=FORMATS) as image:
            pixels: int = image.size[0] * image.size[1]
    except Exception:  # `decode` reports what is wrong with it
        return 0
    return pixels if pixels <= MOST_PIXELS else 0


def decode(body: bytes) -> Image.Image:
    """The image in a file's bytes, upright, in RGB. Raises ImageError."""
    from PIL import Image, ImageOps

    with _decoder_errors():
        with Image.open(io.BytesIO(body), formats=FORMATS) as image:
            width, height = image.size
            if width * height > MOST_PIXELS:
                raise ImageError(f"it has {width} x {height} pixels; the maximum is {MOST_PIXELS // 10**6} million")
            image.verify()
        with Image.open(io.BytesIO(body), formats=FORMATS) as image:  # after verify() the image can't be used any more
            image.load()
            ImageOps.exif_transpose(image, in_place=True)  # copies are large
            return image if image.mode == "RGB" else image.convert("RGB")


def fit(image: Image.Image, side: int) -> Image.Image:
    """The image no larger than a square of `side` pixels; its proportions stay."""
    image.thumbnail((side, side))
    return image


def blank() -> Image.Image:
    """A white image."""
    from PIL import Image

    return Image.new("RGB", (64, 64), "white")


def to_data_uri(image: Image.Image) -> str:
    """The image as others are asked about it: a JPEG that fits into a square of ASKED_SIDE pixels."""
    packed = io.BytesIO()
    fit(image, ASKED_SIDE).save(packed, "JPEG", quality=90)
    return f"data:image/jpeg;base64,{base64.b64encode(packed.getvalue()).decode()}"


def load(file: Path) -> Image.Image:
    """An image that was kept."""
    from PIL import Image

    with Image.open(file) as image:
        image.load()
        return image.convert("RGB")


def load_all(files: Sequence[Path]) -> list[Image.Image]:
    """Images that were kept, in order, decoded in threads: Pillow's decoders let others run meanwhile."""
    if len(files) < 2:
        return [load(file) for file in files]
    with ThreadPoolExecutor(min(len(files), PARALLEL_IMAGES), thread_name_prefix="decode") as pool:
        return list(pool.map(load, files))


def _inline(url: str) -> bytes:
    """The bytes of a data URI in base64 (RFC 2397)."""
    encoded = url.partition(",")[2]
    if len(encoded) > MOST_BYTES * 4 // 3 + 4:
        raise ImageError(_TOO_LARGE)
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ImageError(f"it is not base64: {error}") from error


@contextmanager
def _decoder_errors() -> Iterator[None]:
    """Decoders of untrusted bytes fail in any way; all but too little memory mean that the image is broken."""
    from PIL import Image, UnidentifiedImageError

    try:
        yield
    except (ImageError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(f"it has too many pixels; the maximum is {MOST_PIXELS // 10**6} million") from error
    except UnidentifiedImageError as error:
        raise ImageError(f"it is no {', '.join(FORMATS[:-1])} or {FORMATS[-1]}") from error
    except Exception as error:
        raise ImageError(f"it is broken: {first_line(error)}") from error


def _shown(url: str) -> str:
    return url if len(url) <= 80 else url[:77] + "..."
