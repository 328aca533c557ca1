"""The twelve ways in which `experiments/abuse.py` abuses a server."""

import io
import os
import re
import shutil
import sqlite3
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from benchmarks.costly_files import FILES
from experiments.abused_server import (
    ADMIN_TOKEN,
    Answer,
    Browser,
    Server,
    ask,
    at_once,
    classify,
    exchange,
    held_open,
    read_resident_bytes,
    serve,
)

MEGABYTE = 1_000_000
MAX_SECONDS = 10.0
"""How long others may wait for a page, or for a refusal, while the server is abused."""
SLOW_CLIENTS, UPLOADS = 200, 64
PIXELS = 50 * MEGABYTE
DECODE_BYTES = 1500 * MEGABYTE
"""The default of ALEXNET_DECODE_MEGABYTES."""
COSTLY = (
    "PNG, 1 pixel wide",
    "PNG, RGBA, rotated",
    "PNG, 10,000 profiles",
    "JPEG, 95 scans",
    "JPEG, 10,000 EXIF segments",
    "WebP, animated",
)
STYLESHEET = re.compile(r'href="([^"]+\.css[^"]*)"')
QUOTA_MEGABYTES = 1


class Outcome(NamedTuple):
    """What was sent, what was seen, and whether it held; None if it could not be tried."""

    sent: str
    seen: str
    held: bool | None = None


@dataclass(frozen=True)
class Scene:
    """A server, a photograph to send, a folder for files; and its home, if it was started here."""

    address: str
    photograph: bytes
    place: Path
    home: Path | None = None
    server: Server | None = None

    @property
    def own_home(self) -> Path:
        """The home."""
        assert self.home is not None
        return self.home


class Point(NamedTuple):
    """A way to abuse the server."""

    abuse: Callable[[Scene], Outcome]
    needs_home: bool = True


def draw_photograph(side: int = 300, seed: int = 0) -> bytes:
    """Return a JPEG of noise, about as large as its number of pixels."""
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=95)
    return out.getvalue()


@contextmanager
def watched(address: str) -> Iterator[dict[str, list[Answer]]]:
    """Ask for health and a stylesheet again and again, as others would, during the body."""
    found = STYLESHEET.search(ask(address, "/models").body.decode(errors="replace"))
    paths = {"health": "/livez", "stylesheet": found[1] if found else "/livez"}
    seen: dict[str, list[Answer]] = {name: [] for name in paths}
    ended = threading.Event()

    def watch(name: str) -> None:
        while not ended.is_set():
            seen[name].append(ask(address, paths[name]))
            ended.wait(0.05)

    threads = [threading.Thread(target=watch, args=(name,)) for name in paths]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def summarise(seen: dict[str, list[Answer]]) -> tuple[str, bool]:
    """Describe the others' latency, and whether each was answered in time."""
    words, held = [], True
    for name, answers in seen.items():
        slowest = max(answer.seconds for answer in answers)
        failed = sum(answer.status != 200 for answer in answers)
        held = held and not failed and slowest < MAX_SECONDS
        words.append(f"{name} {len(answers)} times, {1000 * slowest:.0f} ms at most")
        if failed:
            words[-1] += f", {failed} failed"
    return "; ".join(words), held


def count_statuses(answers: list[Answer]) -> str:
    """Say how often each status came."""
    counted = sorted(Counter(answer.status for answer in answers).items())
    return ", ".join(f"{count}× {status or 'closed'}" for status, count in counted)


def send_slowly(scene: Scene) -> Outcome:
    """Open many connections that do not finish their requests, or do not read their answers."""
    head = b"POST /api/classify HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/jpeg\r\n"
    beginnings = (
        b"",
        head,
        head + b"Content-Length: 1000000\r\n\r\nabc",
        b"GET /api/map HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    )
    classify(scene.address, scene.photograph)
    with held_open(scene.address, beginnings * (SLOW_CLIENTS // 4)), watched(scene.address) as seen:
        answer = classify(scene.address, scene.photograph)
    words, held = summarise(seen)
    sent = f"{SLOW_CLIENTS} connections: silent, half a header, half a body, an answer not read"
    seen_text = f"an upload {answer.status} in {answer.seconds:.1f} s; {words}"
    return Outcome(sent, seen_text, held and answer.status == 200)


def send_costly_files(scene: Scene) -> Outcome:
    """Send files that are small and costly to decode."""
    assert scene.server is not None
    classify(scene.address, scene.photograph)
    answers = []
    with watched(scene.address) as seen, peak_memory(scene.server) as peak:
        answers += [classify(scene.address, FILES[name](PIXELS)) for name in COSTLY]
    words, held = summarise(seen)
    memory = peak[0]
    refused = all(answer.status in (200, 400, 413, 415) for answer in answers)
    seen_text = (
        f"{count_statuses(answers)}; the slowest {max(a.seconds for a in answers):.1f} s; decoders "
        f"{memory / MEGABYTE:.0f} MB at most; {words}"
    )
    alive = classify(scene.address, scene.photograph).status == 200
    sent = f"{len(COSTLY)} files: {'; '.join(COSTLY)}"
    return Outcome(sent, seen_text, held and refused and alive and memory < DECODE_BYTES)


@contextmanager
def peak_memory(server: Server) -> Iterator[list[int]]:
    """Watch the memory of the decoding processes together; the list's only entry is the most."""
    peak, ended = [0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.02):
            peak[0] = max(peak[0], sum(map(read_resident_bytes, find_decoders(server))))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        ended.set()
        thread.join()


def find_decoders(server: Server) -> list[int]:
    """Return the decoding processes."""
    found = []
    for pid in server.find_processes():
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if b"decoding/child.py" in command:
            found.append(pid)
    return found


def send_many_at_once(scene: Scene) -> Outcome:
    """Send more uploads at once than may wait."""
    classify(scene.address, scene.photograph)
    with watched(scene.address) as seen:
        answers = at_once([partial(classify, scene.address, scene.photograph)] * UPLOADS)
    words, held = summarise(seen)
    refused = [answer for answer in answers if answer.status == 503]
    named = all("retry-after" in answer.headers for answer in refused)
    right = {answer.status for answer in answers} <= {200, 503} and bool(refused)
    served = any(answer.status == 200 for answer in answers)
    seen_text = (
        f"{count_statuses(answers)}, Retry-After in {'all' if named else 'NOT all'}; {words}"
    )
    return Outcome(f"{UPLOADS} uploads at once", seen_text, held and right and named and served)


def change_weights(scene: Scene) -> Outcome:
    """Overwrite and cut the weights file in place, while it is served."""
    file = (scene.own_home / "weights.safetensors").resolve()
    whole, before = file.read_bytes(), classify(scene.address, scene.photograph)
    try:
        with file.open("r+b") as out:
            out.seek(len(whole) // 2)
            out.write(b"\xff" * MEGABYTE)
        overwritten = classify(scene.address, scene.photograph)
        os.truncate(file, len(whole) // 3)
        cut = classify(scene.address, scene.photograph)
    finally:
        file.write_bytes(whole)
    same = [read_labels(before) == read_labels(after) for after in (overwritten, cut)]
    statuses = [answer.status for answer in (before, overwritten, cut)]
    seen_text = f"{statuses}, the labels {'the same' if all(same) else 'NOT the same'}"
    held = all(same) and set(statuses) == {200}
    return Outcome("the weights file overwritten in its middle, then cut", seen_text, held)


def read_labels(answer: Answer) -> list[bytes]:
    """Return the labels and probabilities of an answer."""
    found = re.search(rb'"top5":\s*(\[.*?\])', answer.body, re.DOTALL)
    return [found[1]] if found else [os.urandom(8)]


def remove_database(scene: Scene) -> Outcome:
    """Move the database away, ask, and put it back."""
    files = sorted(scene.own_home.glob("app.sqlite3*"))
    aside = scene.place / "aside"
    aside.mkdir()
    for file in files:
        file.rename(aside / file.name)
    try:
        health, alive = ask(scene.address, "/readyz"), ask(scene.address, "/livez")
        upload = classify(scene.address, scene.photograph)
        made = (scene.own_home / "app.sqlite3").exists()
    finally:
        for file in files:
            (aside / file.name).rename(file)
        aside.rmdir()
    again = ask(scene.address, "/readyz")
    statuses = [health.status, alive.status, upload.status, again.status]
    seen_text = (
        f"/readyz {health.status}, /livez {alive.status}, an upload {upload.status}; put back: "
        f"/readyz {again.status}; {'an empty one was made' if made else 'no other was made'}"
    )
    named = b'"database"' in health.body and "retry-after" in health.headers
    held = statuses == [503, 200, 503, 200] and named and not made
    return Outcome("the database's file moved away", seen_text, held)


def lock_database(scene: Scene) -> Outcome:
    """Hold a lock on the database, so that whoever writes has to wait."""
    browser = Browser(scene.address)
    browser.find_form_token()
    with closing(sqlite3.connect(scene.own_home / "app.sqlite3")) as other:
        other.execute("BEGIN IMMEDIATE")
        with watched(scene.address) as seen:
            refused = browser.upload(scene.photograph)
        other.rollback()
    stored = browser.upload(scene.photograph)
    words, held = summarise(seen)
    seen_text = (
        f"an upload {refused.status} after {refused.seconds:.1f} s; without the lock "
        f"{stored.status}; {words}"
    )
    right = (refused.status, stored.status) == (503, 303) and "retry-after" in refused.headers
    return Outcome("the database locked by another process", seen_text, held and right)


POST = b"POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n"
MALFORMED = {
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
    "an unknown version": b"GET / HTTP/9.9\r\n\r\n",
    "a header without a colon": b"GET / HTTP/1.1\r\nHost 127.0.0.1\r\n\r\n",
    "an address of 100 kB": b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: h\r\n\r\n",
    "a thousand headers": b"GET / HTTP/1.1\r\n" + b"X-A: b\r\n" * 10_000 + b"\r\n",
    "two lengths": POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "a negative length": POST + b"Content-Length: -1\r\n\r\n",
    "a length of 10 GB": POST + b"Content-Length: 10000000000\r\n\r\n",
    "a chunk of no size": POST + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n\r\n",
    "a path out of the root": b"GET /static/../../etc/passwd HTTP/1.0\r\nHost: h\r\n\r\n",
    "a zero in the path": b"GET /static/%00 HTTP/1.0\r\nHost: h\r\n\r\n",
    "control characters": b"GET /nothing%0aFORGED%1b[2J HTTP/1.0\r\nHost: h\r\n\r\n",
}


def send_malformed(scene: Scene) -> Outcome:
    """Send what is no request, or a wrong one."""
    answers = {}
    for name, data in MALFORMED.items():
        first = exchange(scene.address, data).split(b"\r\n")[0].split(b" ")
        answers[name] = int(first[1]) if len(first) > 1 and first[1].isdigit() else 0
    wrong = [
        name
        for name, status in answers.items()
        if not (400 <= status < 500 or status in (501, 505))
    ]
    forged = scene.server is not None and any(
        line.startswith("FORGED") or "\x1b" in line for line in scene.server.log
    )
    alive = ask(scene.address, "/livez").status
    counted = ", ".join(f"{n}× {s}" for s, n in sorted(Counter(answers.values()).items()))
    seen_text = f"{counted}; then /livez {alive}" + ("; A LINE WAS FORGED" if forged else "")
    if wrong:
        seen_text += f"; not refused: {', '.join(wrong)}"
    held = not wrong and not forged and alive == 200
    return Outcome("; ".join(MALFORMED), seen_text, held)


def take_others_uploads(scene: Scene) -> Outcome:
    """Try to delete what another browser has uploaded, and to guess its address."""
    owner, stranger = Browser(scene.address), Browser(scene.address)
    path = owner.upload(scene.photograph).headers.get("location", "/nothing")
    stranger.find_form_token()
    shown = stranger.ask(path).status
    refused = stranger.send_form(f"{path}/delete").status
    forged = Browser(scene.address, cookie=owner.cookie[:-4] + "AAAA")
    also_refused = forged.send_form(f"{path}/delete").status
    guessed = {ask(scene.address, f"/results/{'A' * 21}{letter}").status for letter in "ABCDE"}
    kept = owner.ask(path).status
    deleted, gone = owner.send_form(f"{path}/delete").status, owner.ask(path).status
    seen_text = (
        f"with the link it is shown ({shown}), deleting is refused ({refused}, with a forged "
        f"cookie {also_refused}), guesses {guessed}; its owner deletes it ({deleted}, then {gone})"
    )
    held = (shown, kept, deleted, gone, guessed) == (200, 200, 303, 404, {404})
    held = held and {refused, also_refused} <= {400, 403, 404}
    return Outcome("a stranger's browser, a forged cookie, five guesses", seen_text, held)


def fill_disk(scene: Scene) -> Outcome:
    """Upload more than the quota, then more than the disk holds."""
    home, uploads = scene.own_home, scene.own_home / "uploads"
    shutil.rmtree(uploads, ignore_errors=True)
    with serve(home, ALEXNET_UPLOAD_QUOTA_MEGABYTES=str(QUOTA_MEGABYTES)) as server:
        browser = Browser(server.address)
        sent = [browser.upload(draw_photograph(700, seed)).status for seed in range(6)]
        most = wait_for_size(uploads, QUOTA_MEGABYTES * MEGABYTE)
    seen_text = (
        f"{count_numbers(sent)}; {most / MEGABYTE:.2f} MB kept of a quota of {QUOTA_MEGABYTES}"
    )
    held = set(sent) == {303} and 0 < most <= QUOTA_MEGABYTES * MEGABYTE
    full, holds = fill_small_disk(scene)
    return Outcome(
        "6 pictures of about 0.5 MB; then a disk of 1 MB filled",
        f"{seen_text}; {full}",
        held and holds is not False,
    )


def wait_for_size(folder: Path, most: int) -> int:
    """Wait until a folder is no larger; return its size."""
    end = time.monotonic() + 30
    while True:
        size = sum(file.stat().st_size for file in folder.glob("*.jpg"))
        if size <= most or time.monotonic() > end:
            return size
        time.sleep(0.2)


def fill_small_disk(scene: Scene) -> tuple[str, bool | None]:
    """Fill a small disk with uploads; None if none can be mounted."""
    uploads, small = scene.own_home / "uploads", scene.place / "small"
    small.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)]
    if os.getuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        return "no small disk without root's rights, so that was skipped", None
    shutil.rmtree(uploads, ignore_errors=True)
    uploads.symlink_to(small)
    try:
        browser = Browser(scene.address)
        answers = [browser.upload(draw_photograph(700, seed)) for seed in range(4)]
        (path,) = {a.headers["location"] for a in answers[:1]}
        deleted = browser.send_form(f"{path}/delete").status
        again = browser.upload(scene.photograph).status
        health = ask(scene.address, "/readyz").status
    finally:
        uploads.unlink()
        subprocess.run(["umount", "--lazy", str(small)], check=False)
    seen = [answer.status for answer in answers]
    words = f"full disk: {count_numbers(seen)}, deleting {deleted}, then {again}, /readyz {health}"
    return words, (
        507 in seen and set(seen) == {303, 507} and (deleted, again, health) == (303, 303, 200)
    )


def count_numbers(statuses: list[int]) -> str:
    """Say how often each status came."""
    return ", ".join(f"{count}× {status}" for status, count in sorted(Counter(statuses).items()))


def guess_token(scene: Scene) -> Outcome:
    """Guess the administrator's token."""
    browser = Browser(scene.address)
    guesses = [
        browser.send_form("/models", file="nothing", token=f"guess number {n}") for n in range(8)
    ]
    right = browser.send_form("/models", file="nothing", token=ADMIN_TOKEN)
    statuses = [answer.status for answer in guesses]
    seen_text = f"{count_numbers(statuses)}; then the right one {right.status}"
    if scene.server is None and set(statuses) == {403}:
        return Outcome("8 wrong tokens", f"{seen_text}: switching is off there")
    limited = [answer for answer in guesses if answer.status == 429]
    held = statuses == sorted(statuses) and set(statuses) == {403, 429} and right.status == 429
    held = held and all("retry-after" in answer.headers for answer in limited)
    return Outcome("8 wrong tokens, then the right one", seen_text, held)


def claim_hosts(scene: Scene) -> Outcome:
    """Ask for another host, and claim to be a proxy."""
    forwarded = {
        "X_Forwarded_Host": "evil.example",
        "X_Forwarded_Proto": "https",
        "X_Forwarded_Prefix": "/evil",
    }
    with serve(
        scene.own_home, ALEXNET_HOSTS="photographs.example", ALEXNET_API_RATE="5 per hour"
    ) as server:
        other = ask(server.address, "/", Host="evil.example").status
        page = ask(server.address, "/models", Host="photographs.example", **forwarded)
        asked = [
            ask(
                server.address,
                "/api/models",
                Host="photographs.example",
                X_Forwarded_For=f"192.0.2.{number}",
            ).status
            for number in range(8)
        ]
    believed = b"evil" in page.body or "strict-transport-security" in page.headers
    seen_text = (
        f"another host {other}; the page {page.status}, what the headers claim is "
        f"{'BELIEVED' if believed else 'not believed'}; 8 requests at a limit of 5: "
        f"{count_numbers(asked)}"
    )
    held = (other, page.status) == (400, 200) and not believed and asked == [200] * 5 + [429] * 3
    return Outcome("another Host, X-Forwarded headers, 8 invented addresses", seen_text, held)


def set_clock(scene: Scene) -> Outcome:
    """Make the clock seem to have leapt by years, then seem right."""
    home = scene.own_home
    path = Browser(scene.address).upload(scene.photograph).headers.get("location", "/nothing")
    picture = home / "uploads" / f"{path.rsplit('/', 1)[-1]}.jpg"
    clock = home / ".uploads-clock.json"
    if not (clock.exists() and picture.exists()):
        return Outcome("an upload", "it was not stored, or the clock was not looked at", False)
    with closing(sqlite3.connect(home / "app.sqlite3")) as database:
        database.execute("UPDATE result SET created_at = '2015-01-01 00:00:00.000000'")
        database.commit()
    # What was noted when the clock was still years back.
    leapt = re.sub(r'("clock": )[\d.]+', r"\g<1>1420000000.0", clock.read_text())
    kept = []
    for noted in (leapt, ""):
        clock.write_text(noted)
        with serve(home):
            wait_until(lambda noted=noted: clock.read_text() != noted)
            # Deleting begins when the clock has been noted.
            wait_until(lambda: not picture.exists(), seconds=5)
            kept.append(picture.exists())
    seen = (
        f"after the leap its picture is {'there' if kept[0] else 'DELETED'}, "
        f"with a right clock {'STILL THERE' if kept[1] else 'deleted'}"
    )
    return Outcome("an upload that a leap of years makes old", seen, kept == [True, False])


def wait_until(condition: Callable[[], bool], *, seconds: float = 30) -> None:
    """Wait, so many seconds at most."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.2)


POINTS = {
    "slow": Point(send_slowly, needs_home=False),
    "files": Point(send_costly_files),
    "burst": Point(send_many_at_once, needs_home=False),
    "weights": Point(change_weights),
    "health": Point(remove_database),
    "lock": Point(lock_database),
    "malformed": Point(send_malformed, needs_home=False),
    "ownership": Point(take_others_uploads, needs_home=False),
    "disk": Point(fill_disk),
    "tokens": Point(guess_token, needs_home=False),
    "hosts": Point(claim_hosts),
    "clock": Point(set_clock),
}
"""The points by name, in the order in which they are tried."""
