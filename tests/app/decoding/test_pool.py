"""Images are decoded in other processes, which have limits, end, and are replaced."""

import gc
import io
import os
import signal
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data as photographs

from app.decoding.budget import MemoryBudget
from app.decoding.child import DecodeRequest, decode_here
from app.decoding.pool import DecoderPool
from app.decoding.process import DecoderProcess
from model.image.decode import ImageError, estimate_memory, read_container

BOTH = DecodeRequest(side=256, picture=True)
MEGABYTE = 1_000_000


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def make_png(width: int, height: int, depth: int, colour: int, trns: bytes = b"") -> bytes:
    """A PNG of zeros."""

    def chunk(name: bytes, body: bytes) -> bytes:
        checksum = zlib.crc32(body, zlib.crc32(name))
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", checksum)

    stride = {0: 1, 2: 3, 4: 2, 6: 4}[colour] * depth // 8 * width
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(bytes((stride + 1) * height), 1)) + chunk(b"IEND", b"")
    more = chunk(b"tRNS", trns) if trns else b""
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + more + body


@pytest.fixture(scope="module")
def astronaut() -> Image.Image:
    return Image.fromarray(photographs.astronaut())  # type: ignore[no-untyped-call]


@pytest.fixture(scope="module")
def shared() -> Iterator[DecoderPool]:
    """A pool of one process with ample limits, for tests that leave it as it is."""
    pool = DecoderPool(1, 1500 * MEGABYTE, 60)
    yield pool
    pool.close()


@pytest.fixture
def make_pool() -> Iterator[type[DecoderPool]]:
    """Makes pools, and ends their processes."""
    made = []

    class Pool(DecoderPool):
        def __init__(self, *limits: float) -> None:
            super().__init__(*limits)  # type: ignore[arg-type]
            made.append(self)

    yield Pool
    for pool in made:
        pool.close()


def process_of(pool: DecoderPool) -> DecoderProcess:
    (process,) = pool.running
    return process


def exists(pid: int) -> bool:
    """Whether a process is there, be it only as a zombie."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("resize", ["bicubic", "bilinear", "warp"])
def test_pixels_are_those_of_this_process(
    shared: DecoderPool, astronaut: Image.Image, kind: str, resize: str
) -> None:
    image = astronaut.resize((1500, 300))
    data, request = saved(image, kind), DecodeRequest(side=227, resize=resize, picture=True)  # type: ignore[arg-type]
    there, here = shared.decode(data, request), decode_here(data, request)
    assert np.array_equal(there.square, here.square)
    assert np.array_equal(there.picture, here.picture)
    assert (there.width, there.height) == (1500, 300)
    assert there.square.shape == (227, 227, 3)
    assert there.picture.shape == (256, 1024, 3)  # cut to four to one
    assert there.square.flags.writeable


def test_what_is_not_asked_for_is_not_made(shared: DecoderPool, astronaut: Image.Image) -> None:
    decoded = shared.decode(saved(astronaut, "JPEG"), DecodeRequest())
    assert (decoded.square.size, decoded.picture.size) == (0, 0)
    assert (decoded.width, decoded.height) == astronaut.size


def test_faults_are_told_as_in_this_process(shared: DecoderPool, astronaut: Image.Image) -> None:
    jpeg = saved(astronaut, "JPEG")
    for data, request, reason in (
        (b"", BOTH, "empty"),
        (b"GIF89a", BOTH, "unknown"),
        (jpeg[:5000], BOTH, "damaged"),
        (jpeg, DecodeRequest(max_pixels=512 * 512 - 1), "too-large"),
        (jpeg, DecodeRequest(max_side=511), "too-large"),
    ):
        with pytest.raises(ImageError) as there:
            shared.decode(data, request)
        assert there.value.reason == reason
    assert shared.decode(jpeg, BOTH).width == 512


FILES = {
    "grey with alpha": lambda: make_png(3000, 2000, 8, 4),
    "16-bit grey": lambda: make_png(3000, 2000, 16, 0),
    "RGBA": lambda: make_png(3000, 2000, 16, 6),
    "transparent colour": lambda: make_png(3000, 2000, 8, 2, bytes(6)),
    "strip": lambda: make_png(60_000, 100, 8, 2),
    "progressive CMYK": lambda: saved(
        Image.new("CMYK", (3000, 2000)), "JPEG", progressive=True, subsampling=0, exif=TURNED
    ),
    "no end marker": lambda: saved(Image.new("RGB", (3000, 2000)), "JPEG")[:-2],
    "lossless WebP": lambda: saved(Image.new("RGBA", (3000, 2000)), "WEBP", lossless=True),
    "WebP with alpha": lambda: saved(
        Image.radial_gradient("L").resize((3000, 2000)).convert("LA"), "WEBP", exif=TURNED
    ),
}
TURNED = b"Exif\0\0II*\0\x08\0\0\0\1\0" + struct.pack("<HHIHHI", 0x112, 3, 1, 6, 0, 0)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads /proc")
@pytest.mark.parametrize("name", FILES)
def test_decoding_takes_no_more_memory_than_it_reserves(shared: DecoderPool, name: str) -> None:
    data = FILES[name]()
    shared.warm_up()
    folder = Path(f"/proc/{process_of(shared).process.pid}")

    def read(entry: str) -> int:
        lines = (folder / "status").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith(entry))

    (folder / "clear_refs").write_text("5")  # resets the peak
    before = read("VmRSS")
    shared.decode(data, DecodeRequest(side=256, resize="warp", picture=True))
    assert read("VmHWM") - before <= estimate_memory(read_container(data))
    assert read("VmRSS") - before < 10 * MEGABYTE  # it is given back


def test_an_image_that_needs_more_than_the_budget_is_refused(
    make_pool: type[DecoderPool], astronaut: Image.Image
) -> None:
    pool = make_pool(1, 20 * MEGABYTE, 60)
    with pytest.raises(ImageError, match="MB of memory") as caught:
        pool.decode(make_png(2000, 1000, 8, 2), BOTH)
    assert caught.value.reason == "too-large"
    assert pool.decode(saved(astronaut, "JPEG"), BOTH).width == 512
    assert pool.budget.free == 20 * MEGABYTE


def test_a_large_image_is_decoded_when_its_memory_is_free(make_pool: type[DecoderPool]) -> None:
    pool, decoded = make_pool(1, 400 * MEGABYTE, 60), []
    data = make_png(5000, 4000, 8, 0)  # 260 MB
    sending = threading.Thread(target=lambda: decoded.append(pool.decode(data, BOTH)))
    with pool.budget.reserve(200 * MEGABYTE):
        sending.start()
        sending.join(1)
        assert not decoded
    sending.join(60)
    assert (decoded[0].width, decoded[0].height) == (5000, 4000)


def test_an_image_that_takes_too_long_is_refused_and_the_next_one_decoded(
    make_pool: type[DecoderPool], astronaut: Image.Image
) -> None:
    pool = make_pool(1, 1500 * MEGABYTE, 0.2)
    jpeg = saved(astronaut.resize((64, 64)), "JPEG")
    pool.decode(jpeg, BOTH)
    first = process_of(pool).process.pid
    with pytest.raises(ImageError, match=r"0\.2 seconds") as caught:
        pool.decode(make_png(7000, 7000, 16, 6), BOTH)
    assert caught.value.reason == "too-large"
    assert not exists(first)
    assert pool.decode(jpeg, BOTH).width == 64
    assert pool.budget.free == 1500 * MEGABYTE


def test_a_process_killed_by_something_else_is_replaced(
    make_pool: type[DecoderPool], astronaut: Image.Image
) -> None:
    pool, jpeg = make_pool(1, 1500 * MEGABYTE, 60), saved(astronaut, "JPEG")
    pool.decode(jpeg, BOTH)
    killed = process_of(pool).process.pid
    os.kill(killed, signal.SIGKILL)
    os.waitid(os.P_PID, killed, os.WEXITED | os.WNOWAIT)
    assert pool.decode(jpeg, BOTH).width == 512
    assert not exists(killed)


def test_a_process_killed_while_it_decodes_is_an_error_of_the_image(
    make_pool: type[DecoderPool], astronaut: Image.Image
) -> None:
    pool = make_pool(1, 1500 * MEGABYTE, 60)
    pool.warm_up()
    process = process_of(pool)

    def kill(amount: int) -> AbstractContextManager[None]:
        os.kill(process.process.pid, signal.SIGSEGV)
        os.waitid(os.P_PID, process.process.pid, os.WEXITED | os.WNOWAIT)
        return MemoryBudget(amount).reserve(amount)

    pool.budget.reserve = kill  # type: ignore[method-assign]
    with pytest.raises(ImageError) as caught:
        pool.decode(saved(astronaut, "JPEG"), BOTH)
    assert caught.value.reason == "too-large"
    assert not exists(process.process.pid)


def test_threads_share_the_processes(make_pool: type[DecoderPool], astronaut: Image.Image) -> None:
    pool, jpeg = make_pool(2, 30 * MEGABYTE, 60), saved(astronaut, "JPEG")
    expected, found = decode_here(jpeg, BOTH).square, []
    threads = [
        threading.Thread(target=lambda: found.append(pool.decode(jpeg, BOTH).square))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6
    assert all(np.array_equal(square, expected) for square in found)
    assert 1 <= len(pool.running) <= 2


def test_who_finds_too_little_memory_waits_for_it() -> None:
    budget, reserved = MemoryBudget(100), threading.Event()

    def wait() -> None:
        with budget.reserve(60):
            reserved.set()

    waiting = threading.Thread(target=wait)
    with budget.reserve(50):
        waiting.start()
        assert not reserved.wait(0.1)
    assert reserved.wait(30)
    waiting.join()
    assert budget.free == 100


def test_processes_end_with_their_pool(astronaut: Image.Image) -> None:
    pool = DecoderPool(1, 1500 * MEGABYTE, 60)
    pool.warm_up()
    pid = process_of(pool).process.pid
    del pool
    gc.collect()
    assert not exists(pid)


def test_a_process_ends_with_the_server_that_started_it() -> None:
    process = DecoderProcess(60)
    assert process.process.stdin is not None
    process.process.stdin.close()  # as the system does when the server dies
    assert process.process.wait(30) == 0
    process.stop()


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="reads /proc")
def test_a_process_gets_no_secret(
    make_pool: type[DecoderPool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_KEY", "a secret of some length")
    pool = make_pool(1, 1500 * MEGABYTE, 60)
    pool.warm_up()
    environment = Path(f"/proc/{process_of(pool).process.pid}/environ").read_bytes()
    assert b"PATH=" in environment
    assert b"a secret of some length" not in environment


def test_the_process_that_decodes_loads_neither_torch_nor_flask() -> None:
    script = (
        "import sys, app.decoding.child; "
        "print(sorted({'torch', 'flask', 'faiss', 'openvino'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr
