"""A school: photographs in a zip, an application with weights, and its administrator."""

import io
import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import skimage.data
from flask import Flask
from flask.testing import FlaskClient
from PIL import Image
from werkzeug.test import TestResponse

from app.config import Settings
from storage.files import switch_link
from storage.home import Home

MakeZip = Callable[[Mapping[str | zipfile.ZipInfo, bytes]], bytes]


@pytest.fixture(scope="session")
def make_zip() -> MakeZip:
    """Makes a zip of these files."""

    def make(files: Mapping[str | zipfile.ZipInfo, bytes]) -> bytes:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in files.items():
                archive.writestr(name, data)
        return out.getvalue()

    return make


TOKEN = "an administrator's token"


@pytest.fixture(scope="module")
def school(
    tmp_path_factory: pytest.TempPathFactory, settings: Settings, open_app: Callable[..., Flask]
) -> Flask:
    """An application with weights, without an index, whose administrator has a token."""
    home = Home(root=tmp_path_factory.mktemp("school"))
    switch_link(home.weights, settings.home.weights.resolve())
    limits = {"dataset_megabytes": 1, "admin_token": TOKEN}
    return open_app(replace(settings, home=home, **limits))


@dataclass
class Teacher:
    """A browser that has sent the administrator's token."""

    client: FlaskClient
    csrf: str
    token: str = TOKEN

    def post(self, address: str, **fields: Any) -> TestResponse:
        """Send a form."""
        return self.client.post(address, data={"csrf_token": self.csrf, **fields})

    def send_zip(self, data: bytes, name: str) -> TestResponse:
        """Send a zip."""
        return self.post("/new/from/zip", name=name, zip=(io.BytesIO(data), "photographs.zip"))


@pytest.fixture
def teacher(school: Flask) -> Teacher:
    """A browser that has sent the administrator's token."""
    return enter(school)


def enter(app: Flask) -> Teacher:
    """Send the token of an application's administrator."""
    client = app.test_client()
    found = re.search(r'name="csrf_token" value="([^"]+)"', client.get("/new").text)
    assert found
    teacher = Teacher(client, found[1])
    assert teacher.post("/new/token", token=TOKEN).status_code == 303
    return teacher


@pytest.fixture(scope="session")
def two_classes(make_zip: MakeZip) -> bytes:
    """A zip of two classes, six photographs each."""
    files = {}
    for label, seed in (("brick", 0), ("coffee", 50)):
        for n in range(6):
            out = io.BytesIO()
            photograph(label, seed + n).save(out, "JPEG")
            files[f"{label}/{n}.jpg"] = out.getvalue()
    return make_zip(files)


def photograph(name: str, seed: int) -> Image.Image:
    """Cut a square from a photograph that scikit-image ships, the place drawn from a seed."""
    whole = getattr(skimage.data, name)()
    top, left = np.random.default_rng(seed).integers(0, min(whole.shape[:2]) - 120, 2)
    picture = whole[top : top + 120, left : left + 120]
    return Image.fromarray(picture).convert("RGB")
