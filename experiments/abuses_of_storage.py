"""What may happen to the files and the database of a running server, and to its clock."""

import os
import re
import shutil
import sqlite3
import subprocess
import time
from contextlib import closing
from functools import partial
from pathlib import Path

from experiments.abuse_scene import (
    MEGABYTE,
    Outcome,
    Scene,
    count_numbers,
    draw_photograph,
    summarise,
    wait_until,
    watched,
)
from experiments.abused_server import (
    Answer,
    Browser,
    ask,
    classify,
    serve,
)

QUOTA_MEGABYTES = 1


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


def has_changed(file: Path, before: str) -> bool:
    """Whether a file's text is another than before."""
    return file.read_text() != before


def set_clock(scene: Scene) -> Outcome:
    """Make the clock seem to have leapt by years, then seem right."""
    home = scene.own_home
    clock = home / ".uploads-clock.json"
    classify(scene.address, scene.photograph)  # the first waits for the network to be read
    wait_until(clock.exists)
    answer = Browser(scene.address).upload(scene.photograph)
    path = answer.headers.get("location", "/nothing")
    picture = home / "uploads" / f"{path.rsplit('/', 1)[-1]}.jpg"
    if not (clock.exists() and picture.exists()):
        seen = f"{answer.status}, {'a' if clock.exists() else 'no'} clock was noted"
        return Outcome("an upload", seen, False)
    with closing(sqlite3.connect(home / "app.sqlite3")) as database:
        database.execute("UPDATE result SET created_at = '2015-01-01 00:00:00.000000'")
        database.commit()
    # What was noted when the clock was still years back.
    leapt = re.sub(r'("clock": )[\d.]+', r"\g<1>1420000000.0", clock.read_text())
    kept = []
    for noted in (leapt, ""):
        clock.write_text(noted)
        with serve(home):
            wait_until(partial(has_changed, clock, noted))
            # Deleting begins when the clock has been noted.
            wait_until(lambda: not picture.exists(), seconds=5)
            kept.append(picture.exists())
    seen = (
        f"after the leap its picture is {'there' if kept[0] else 'DELETED'}, "
        f"with a right clock {'STILL THERE' if kept[1] else 'deleted'}"
    )
    return Outcome("an upload that a leap of years makes old", seen, kept == [True, False])
