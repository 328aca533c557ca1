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
TOKEN = "an administrator's token"
VISIT = """
import io, json, re, sys, zipfile
from collections import Counter

blocked, picture = sys.argv[1].split(), sys.argv[2]
sys.modules.update(dict.fromkeys(blocked))

from app import create_app

app = create_app()
client, routes = app.test_client(), app.url_map.bind("localhost")
with open(picture, "rb") as file:
    answer = client.post("/api/classify", data={"image": (io.BytesIO(file.read()), "cat.jpg")})
found = {"answer": [answer.status_code, answer.get_json()], "wrong": [], "endpoints": []}
zipped = io.BytesIO()
with zipfile.ZipFile(zipped, "w") as archive:
    for name in ("cat/1", "cat/2", "dog/1", "dog/2"):
        archive.write(picture, f"{name}.jpg")
csrf = re.search(r'csrf_token" value="([^"]+)', client.get("/new").get_data(as_text=True))[1]
def post(address, **fields):
    answer = client.post(address, data={"csrf_token": csrf, **fields})
    return [answer.status_code, answer.get_data(as_text=True)]
post("/new/token", token=sys.argv[3])
post("/new/from/zip", name="pets", zip=(io.BytesIO(zipped.getvalue()), "pets.zip"))
post("/new/pets/head")
with open(picture, "rb") as file:
    sent = (io.BytesIO(file.read()), "cat.jpg")
found["taught"] = post("/new/pets/classify?part", image=sent)
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
            TOKEN,
        ],
        cwd=ROOT,
        env=environment
        | {
            "ALEXNET_HOME": str(home.root),
            "ALEXNET_RUNTIME": "openvino-f32",
            "PATH": "",
            "ALEXNET_ADMIN_TOKEN": TOKEN,
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["wrong"] == []
    assert found["taught"][0] == 200
    assert 'class="bars"' in found["taught"][1]
    pages = {
        "map.show_map",
        "new.show_dataset",
        "layers.show_layers",
        "filters.show_filters",
        "figure4.show_figure",
    }
    assert pages <= set(found["endpoints"]), found["endpoints"]
    status, answer = found["answer"]
    assert status == 200
    truth = app.test_client().post("/api/classify", data={"image": (io.BytesIO(jpeg), "cat.jpg")})
    ours, theirs = (one["answers"][0]["neighbours"] for one in (answer, truth.get_json()))
    assert [n["id"] for n in ours] == [n["id"] for n in theirs]
