"""What strangers may send: slow, costly, too much, malformed, and in others' names."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from benchmarks.costly_files import FILES
from experiments.abuse_scene import (
    MEGABYTE,
    Outcome,
    Scene,
    count_numbers,
    count_statuses,
    summarise,
    watched,
)
from experiments.abused_server import (
    ADMIN_TOKEN,
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
    with serve(
        scene.own_home, ALEXNET_HOSTS="photographs.example", ALEXNET_API_RATE="5 per hour"
    ) as server:
        other = ask(server.address, "/", Host="evil.example").status
        page = ask(
            server.address,
            "/models",
            Host="photographs.example",
            X_Forwarded_Host="evil.example",
            X_Forwarded_Proto="https",
            X_Forwarded_Prefix="/evil",
        )
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
