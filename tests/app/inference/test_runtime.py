"""The application computes with the runtime that the settings name, and says so."""

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from flask import Flask
from werkzeug.test import TestResponse

from app.config import Settings
from app.inference.state import Ready
from model.image.preprocess import decode_square

pytest.importorskip("openvino", reason="OpenVINO is not installed")


def test_answers_come_from_the_runtime_of_the_settings(
    app: Flask,
    settings: Settings,
    open_app: Callable[[Settings], Flask],
    page: Callable[[TestResponse], Any],
    jpeg: bytes,
    caplog: pytest.LogCaptureFixture,
) -> None:
    other = open_app(replace(settings, runtime="openvino-f32"))
    with caplog.at_level(logging.INFO, "alexnet.runtime"):
        shown = page(other.test_client().get("/models"))
    runtime = shown.all("dl", "figures")[0].text
    assert "openvino-f32" in runtime
    assert "openvino-f32" in caplog.text
    square = decode_square(jpeg)
    states = [one.extensions["loader"].get_state() for one in (app, other)]
    torchs, openvinos = states
    assert isinstance(torchs, Ready)
    assert isinstance(openvinos, Ready)
    assert torchs.predictor.runtime.name == torchs.manifest.runtime == "torch"
    truth, found = (state.predictor.predict(square) for state in states)
    np.testing.assert_allclose(found.probabilities, truth.probabilities, atol=1e-5)
    # An index and its queries may come from different runtimes.
    near = [
        state.index.search(one.fc7[None], 6).ids
        for state, one in zip(states, (truth, found), strict=True)
    ]
    assert (near[0] == near[1]).all()
