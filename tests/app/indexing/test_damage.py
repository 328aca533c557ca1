"""An index whose files are damaged in service is withdrawn, and never answers wrongly."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from index.vectors import HEADER_BYTES

SHARD = "vectors-00000.npy"


@pytest.fixture
def served(shop, open_app) -> tuple[FlaskClient, int]:
    """A server that has answered once, and an image to ask about."""
    client = open_app(shop.settings).test_client()
    image = int(shop.state().index.id_map.ids[4])
    assert ask(client, image)[0] == 200
    return client, image


def ask(client: FlaskClient, image: int) -> tuple[int, Any]:
    """The status, and the neighbours."""
    answer = client.get(f"/api/images/{image}/neighbours")
    return answer.status_code, answer.get_json().get("neighbours")


def damage_vectors(file: Path) -> None:
    """Change the exponent of a number in the middle of every row."""
    data = bytearray(file.read_bytes())
    for start in range(HEADER_BYTES, len(data), 4 * 4096):
        data[start + 2 * 4096 + 3] ^= 0x10
    with file.open("r+b") as out:  # The same file, as it is open elsewhere.
        out.write(data)


def restart_is_refused(shop, open_app, image: int) -> bool:
    return ask(open_app(shop.settings).test_client(), image)[0] == 503


def test_a_shard_that_changes_is_withdrawn_at_once(
    shop, open_app, served: tuple[FlaskClient, int], caplog: pytest.LogCaptureFixture
) -> None:
    client, image = served
    damage_vectors(shop.version / SHARD)
    # Not one answer is computed from it.
    assert [ask(client, image)[0] for _ in range(3)] == [503] * 3
    assert client.get("/readyz").status_code == 503
    assert str(shop.version / SHARD) in caplog.text
    assert restart_is_refused(shop, open_app, image)
    shop.right("build")
    assert ask(client, image)[0] == 200


def test_damage_that_leaves_no_trace_is_found_by_reading(
    shop, served: tuple[FlaskClient, int], caplog: pytest.LogCaptureFixture
) -> None:
    """As from a failing disk: size and time of the file stay what they were."""
    client, image = served
    file = shop.version / SHARD
    before = file.stat()
    damage_vectors(file)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    statuses = [ask(client, image)[0] for _ in range(30)]
    assert statuses[-1] == 503
    assert client.get("/readyz").status_code == 503
    assert str(file) in caplog.text


def test_a_shard_that_is_cut_short_does_not_end_the_process(
    shop, served: tuple[FlaskClient, int], caplog: pytest.LogCaptureFixture
) -> None:
    client, image = served
    os.truncate(shop.version / SHARD, 4096)
    assert [ask(client, image)[0] for _ in range(3)] == [503] * 3
    assert str(shop.version / SHARD) in caplog.text


def test_a_file_that_is_replaced_by_a_damaged_one_is_not_read(
    shop, open_app, served: tuple[FlaskClient, int], caplog: pytest.LogCaptureFixture
) -> None:
    client, image = served
    right = ask(client, image)
    file = shop.version / SHARD
    shutil.copy(file, file.with_suffix(".copy"))
    file.with_suffix(".copy").replace(file)
    damage_vectors(file)
    client.application.extensions["loader"].get_latest_state()
    # The good file is still open: it serves on, and the log says so.
    assert ask(client, image) == right
    assert "stays in service" in caplog.text
    assert str(file) in caplog.text
    assert restart_is_refused(shop, open_app, image)
