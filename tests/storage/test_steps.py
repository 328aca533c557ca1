"""What training writes every few seconds, as others read it."""

import json
import math
from dataclasses import asdict, replace
from pathlib import Path

from storage.steps import StepRecord, append_step, read_last_step, remove_later_steps

RECORD = StepRecord(
    time=1.8e9,
    epoch=3,
    step=10,
    steps=40,
    images=1280,
    loss=2.5,
    images_per_second=321.5,
    data_wait=0.25,
    memory=1.5,
    remaining=3600.0,
    rates={"conv": 0.01},
    gradient_norms={"conv1": 1.5},
    update_norms={"conv1": 0.015},
)


def test_the_last_whole_line_comes_back(tmp_path: Path) -> None:
    file = tmp_path / "steps.jsonl"
    assert read_last_step(file) is None
    append_step(file, replace(RECORD, step=9))
    append_step(file, RECORD)
    assert read_last_step(file) == RECORD
    assert RECORD.total_step == 90
    whole, line = file.read_bytes(), json.dumps(asdict(replace(RECORD, step=11))).encode()
    for end in range(0, len(line), 7):
        file.write_bytes(whole + line[:end])
        assert read_last_step(file) == RECORD


def test_nonsense_is_unknown(tmp_path: Path) -> None:
    file = tmp_path / "steps.jsonl"
    append_step(file, replace(RECORD, loss=math.nan, memory=math.inf, rates={"conv": math.nan}))
    found = read_last_step(file)
    assert found is not None
    assert (found.loss, found.memory, found.rates) == (None, None, {})
    file.write_text('[]\n{"time": 1, "epoch": 0, "step": 1, "steps": 1}\n{"epoch": "3"}\n\0\n')
    assert read_last_step(file) is None


def test_what_a_resumed_run_does_again_is_cut_off(tmp_path: Path) -> None:
    file = tmp_path / "steps.jsonl"
    remove_later_steps(file, 2, 10)
    for epoch, step in ((2, 40), (3, 5), (3, 10), (3, 15), (4, 1)):
        append_step(file, replace(RECORD, epoch=epoch, step=step))
    with file.open("a") as out:
        out.write('{"time": 1')  # killed while it wrote
    remove_later_steps(file, 2, 10)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(line["epoch"], line["step"]) for line in lines] == [(2, 40), (3, 5), (3, 10)]
    remove_later_steps(file, 0, 0)
    assert file.read_bytes() == b""
