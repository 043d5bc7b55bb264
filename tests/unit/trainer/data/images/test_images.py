"""An image is what its bytes say, whole, of a bounded size, and from where the class allows it."""

from __future__ import annotations

import io
import re
import struct
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import pytest
from PIL import Image

from finetune_api.conditions import Reason
from finetune_api.sources import StorageLocation, is_allowed_url
from finetune_trainer.data.images import images
from finetune_trainer.data.images.images import ImageError, ImageStore, decode, load, load_all
from finetune_trainer.data.images.public_https import PublicHttps, RefusedError
from finetune_trainer.data.read.examples import ChatExample
from finetune_trainer.data.read.messages import Assistant, ImagePart, ImageUrl, TextPart, User
from finetune_trainer.process.failures import DiagnosedError
from finetune_trainer.storage.storage import Storage
from tests.integration.trainer_evaluation.tiny_vision_models import data_uri, png


def encoded(form: str, size: tuple[int, int] = (40, 30), mode: str = "RGB", **options: Any) -> bytes:
    body = io.BytesIO()
    Image.new(mode, size).save(body, form, **options)
    return body.getvalue()


def png_of(width: int, height: int) -> bytes:
    """A PNG that says to be of a size, in a few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("body", [encoded("PNG"), encoded("JPEG"), encoded("WEBP"), encoded("PNG", mode="LA")])
def test_an_image_of_every_accepted_format_is_decoded_as_rgb(body: bytes) -> None:
    image = decode(body)
    assert (image.mode, image.size) == ("RGB", (40, 30))


def test_an_image_is_turned_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    assert decode(encoded("JPEG", exif=exif)).size == (30, 40)


BROKEN = {
    "empty": (b"", "it is no JPEG, PNG or WEBP"),
    "text": (b"<svg onload=alert(1)>", "it is no JPEG, PNG or WEBP"),
    "a GIF": (encoded("GIF"), "it is no JPEG, PNG or WEBP"),
    "a TIFF": (encoded("TIFF"), "it is no JPEG, PNG or WEBP"),
    "an EPS": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "it is no JPEG, PNG or WEBP"),
    "a PNG cut short": (png("red")[:-30], "it is broken"),
    "a PNG with a wrong checksum": (png("red").replace(b"IDAT", b"IDAX"), "it is no"),
    "a PNG without pixels": (png_of(40, 30), "it is broken"),
    "a JPEG cut short": (encoded("JPEG", (400, 300))[:-200], "it is broken"),
    "a WEBP cut short": (encoded("WEBP", (400, 300), lossless=True)[:-20], "it is"),
    "a bomb of 60 million pixels": (png_of(10_000, 6_000), "10000 x 6000 pixels; the maximum is 50 million"),
    "a bomb of 4 billion pixels": (png_of(65_535, 65_535), "too many pixels"),
    "a bomb of no height": (png_of(65_535, 0), "it is"),
}


@pytest.mark.parametrize(("body", "message"), BROKEN.values(), ids=BROKEN)
def test_an_image_that_is_broken_or_too_large_is_refused_with_the_cause(body: bytes, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        decode(body)


class Web:
    """What the public internet answers here."""

    def get(self, url: str, *, allowed: Any, most_bytes: int) -> bytes:
        if not allowed(url):
            raise RefusedError("the class's sources.images do not allow it")
        return png("blue")


class Stored:
    """What the storage answers here."""

    def read_range(self, location: StorageLocation, start: int, length: int, missing: Reason) -> bytes:
        if location.key == "denied.png":
            raise DiagnosedError(Reason.STORAGE_DENIED, "denied")
        if location.key != "red.png":
            raise DiagnosedError(missing, "nothing is there")
        return png("red")


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    sources = ("s3://data/*", "https://images.test/*")
    return ImageStore(tmp_path, cast(Storage, Stored()), sources, cast(PublicHttps, Web()))


def example(*urls: str, detail: Any = "auto") -> ChatExample:
    parts: list[TextPart | ImagePart] = [ImagePart(ImageUrl(url, detail)) for url in urls]
    return ChatExample([User(content=[TextPart("What?"), *parts]), Assistant(content="A cat.")])


def test_the_files_of_an_example_are_in_order_and_each_is_made_once(store: ImageStore) -> None:
    kept = store.keep_all(example("s3://data/red.png", "https://images.test/b.png", data_uri(png("green"))))
    assert [load(file).getpixel((0, 0)) for file in kept] == [(230, 20, 20), (30, 30, 240), (20, 200, 40)]
    again = store.keep_all(example(data_uri(png("green")), "s3://data/red.png"))
    assert again == [kept[2], kept[0]]
    assert len(list(store.directory.iterdir())) == 3


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s3://data/none.png", "nothing is there"),
        ("s3://other/red.png", "the class's sources.datasets do not allow it"),
        ("s3://data/../other/red.png", "the class's sources.datasets do not allow it"),
        ("https://evil.test/a.png", "the class's sources.images do not allow it"),
        ("data:image/png;base64,***", "it is not base64"),
        ("data:image/png;base64," + "A" * (14 * 2**20), "it has more than 10 MB"),
        (data_uri(b"GIF89a"), "it is no JPEG, PNG or WEBP"),
    ],
)
def test_a_bad_image_is_named(store: ImageStore, url: str, message: str) -> None:
    with pytest.raises(ImageError, match=re.escape(message)) as error:
        store.keep_all(example("s3://data/red.png", url))
    assert str(error.value).startswith("Image 2 (")
    assert len(str(error.value)) < 300


def test_good_images_are_kept_and_text_has_none(store: ImageStore) -> None:
    (file,) = store.keep_all(example("s3://data/red.png"))
    assert load(file).tobytes() == decode(png("red")).tobytes()
    assert store.keep_all(ChatExample([User(content="?"), Assistant(content="!")])) == []


def test_a_failure_of_the_storage_is_no_fault_of_the_image(store: ImageStore) -> None:
    with pytest.raises(DiagnosedError, match="denied"):
        store.keep_all(example("s3://data/denied.png"))


def test_an_object_that_is_too_large_is_not_read_whole(store: ImageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MOST_BYTES", len(png("red")) - 1)
    with pytest.raises(ImageError, match="it has more than"):
        store.keep_all(example("s3://data/red.png"))


@pytest.mark.parametrize(("detail", "side"), [("low", 512), ("high", 2048), ("auto", 2048)])
def test_large_images_are_made_smaller(store: ImageStore, detail: str, side: int) -> None:
    (file,) = store.keep_all(example(data_uri(encoded("JPEG", (4000, 1000)), "jpeg"), detail=detail))
    assert load(file).size == (side, side // 4)


def test_the_images_of_a_batch_are_decoded_in_order_by_several_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [tmp_path / f"{number}.png" for number in range(6)]
    for number, file in enumerate(files):
        Image.new("RGB", (8 + number, 8), (number, 0, 0)).save(file)
    together = threading.Barrier(2, timeout=60)

    def loaded(file: Path) -> Image.Image:
        together.wait()  # for another that is decoded meanwhile
        return load(file)

    monkeypatch.setattr(images, "load", loaded)
    found = load_all(files)
    assert [image.size for image in found] == [(8 + number, 8) for number in range(6)]
    assert [image.getpixel((0, 0)) for image in found] == [(number, 0, 0) for number in range(6)]
    assert load_all([]) == []


def test_images_are_fetched_ahead_in_order(store: ImageStore) -> None:
    lines = [(number, example("s3://data/red.png")) for number in range(20)]
    ahead = store.ahead(iter(lines), lambda numbered: numbered[1])
    assert [(line, len(files.result())) for (line, _), files in ahead] == [(number, 1) for number in range(20)]


CLIMBS = (
    "%2e%2e/",
    "%2E./",
    "..%2f",
    "..%5c",
    "..;/",
    "..;a=b/",
    "..\\",
    "%252e%252e/",
    "%25252e%25252e%25252f",
    "%c0%ae%c0%ae/",
    "\uff0e\uff0e/",
    "%EF%BC%8E%EF%BC%8E/",
    "./",
    "%2e%2e?",
    f"%{'25' * 20}2e./",
)


@pytest.mark.parametrize(
    ("url", "pattern", "allowed"),
    [
        ("https://images.test/a/b.png", "https://images.test/*", True),
        ("https://images.test/a.png", "https://images.test", True),
        ("https://IMAGES.test/a.png", "https://images.test/*", True),
        ("https://eu.images.test/a.png", "https://*.images.test/*", True),
        ("https://anything.test/a.png", "https://*", True),
        ("https://images.test/a.png?signed=1", "https://images.test/*", True),
        ("https://images.test:8443/a.png", "https://images.test/*", False),
        ("https://images.test:8443/a.png", "https://images.test:8443/*", True),
        ("https://evil.test/x.images.test/a.png", "https://*.images.test/*", False),
        ("https://evil.test?x.images.test/a.png", "https://*.images.test/*", False),
        ("https://evil.test#.images.test/a.png", "https://*.images.test/*", False),
        ("https://images.test/public/../secret.png", "https://images.test/public/*", False),
        *((f"https://images.test/public/{climb}secret.png", "https://images.test/public/*", False) for climb in CLIMBS),
        ("https://images.test/public/a%20b/100%25.png", "https://images.test/public/*", True),
        ("https://images.test/public/a..b/..c.png", "https://images.test/public/*", True),
        ("http://images.test/a.png", "https://images.test/*", False),
        ("https://images.test/a.png", "s3://*", False),
        ("https://images.test/a.png", "*", False),
    ],
)
def test_an_image_url_is_allowed_by_the_classs_patterns(url: str, pattern: str, allowed: bool) -> None:
    assert is_allowed_url(url, (pattern,)) is allowed


def test_pixels_in_flight_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight PNGs of a few kilobytes each could hold 400 million pixels: they are decoded one after the other."""
    body = encoded("PNG", (600, 500))
    limit = 2 * 600 * 500
    monkeypatch.setattr(images, "IN_FLIGHT", images.PixelsInFlight(limit))
    lock, now, most = threading.Lock(), 0, 0

    def slowly(content: bytes) -> Image.Image:
        nonlocal now, most
        with lock:
            now += 600 * 500
            most = max(most, now)
        time.sleep(0.05)
        image = decode(content)
        with lock:
            now -= 600 * 500
        return image

    monkeypatch.setattr(images, "decode", slowly)
    monkeypatch.setattr(ImageStore, "_read", lambda self, url: body)
    store = ImageStore(tmp_path, cast(Storage, None), ())
    with ThreadPoolExecutor(8) as pool:
        kept = list(pool.map(lambda number: store.keep(ImageUrl(url=f"https://a/{number}")), range(8)))
    assert len(set(kept)) == 8
    assert most == limit


def test_one_image_alone_has_room_and_a_broken_one_needs_none() -> None:
    room = images.PixelsInFlight(10)
    with room.holding(50):
        pass
    with room.holding(0), room.holding(10):
        pass
    assert images.pixels_of(encoded("PNG", (40, 30))) == 1200
    assert images.pixels_of(b"no image") == images.pixels_of(png_of(10_000, 10_000)) == 0
