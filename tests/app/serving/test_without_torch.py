"""A server whose network was prepared answers everything where torch cannot be imported."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from app.config import Settings
from deploy.install import PACKAGES_FOR_TRAINING
from model.runtime.prepare import main

pytest.importorskip("openvino", reason="OpenVINO is not installed")
ROOT = Path(__file__).resolve().parents[3]
VISIT = """
import io, json, re, sys
from collections import Counter

blocked, picture = sys.argv[1].split(), sys.argv[2]
sys.modules.update(dict.fromkeys(blocked))

from app import create_app

app = create_app()
client, routes = app.test_client(), app.url_map.bind("localhost")
with open(picture, "rb") as file:
    answer = client.post("/api/classify", data={"image": (io.BytesIO(file.read()), "cat.jpg")})
found = {"answer": [answer.status_code, answer.get_json()], "wrong": [], "endpoints": []}
waiting, seen, visits = ["/"], {"/"}, Counter()
while waiting:
    path = waiting.pop(0)
    endpoint, _ = routes.match(path.partition("?")[0], method="GET")
    if visits[endpoint] == 2:
        continue
    visits[endpoint] += 1
    page = client.get(path)
    if page.status_code != 200:
        found["wrong"].append([path, page.status_code, page.get_data(as_text=True)[-2000:]])
    if page.mimetype == "text/html":
        for link in re.findall(r'(?:href|src)="(/[^"#]*)', page.get_data(as_text=True)):
            link = link.replace("&amp;", "&")
            if link not in seen and not link.startswith("/static"):
                seen.add(link)
                waiting.append(link)
found["endpoints"] = sorted(visits)
print(json.dumps(found))
"""


def test_every_page_and_answer_does_without_torch(
    settings: Settings,
    environment: dict[str, str],
    copy_home,
    tmp_path: Path,
    jpeg: bytes,
    app,
) -> None:
    home = copy_home(settings.home, tmp_path / "home")
    words = [str(home.weights.resolve()), "cpu", "openvino-f32", str(home.runtimes)]
    assert main(words) is None
    picture = tmp_path / "picture.jpg"
    picture.write_bytes(jpeg)
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            VISIT,
            " ".join([*PACKAGES_FOR_TRAINING.values(), "faiss"]),
            str(picture),
        ],
        cwd=ROOT,
        env=environment
        | {"ALEXNET_HOME": str(home.root), "ALEXNET_RUNTIME": "openvino-f32", "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["wrong"] == []
    pages = {"map.show_map", "layers.show_layers", "filters.show_filters", "figure4.show_figure"}
    assert pages <= set(found["endpoints"]), found["endpoints"]
    status, answer = found["answer"]
    assert status == 200
    truth = app.test_client().post("/api/classify", data={"image": (io.BytesIO(jpeg), "cat.jpg")})
    ours, theirs = (one["answers"][0]["neighbours"] for one in (answer, truth.get_json()))
    assert [n["id"] for n in ours] == [n["id"] for n in theirs]
