"""The measurements on a GPU, as far as they can be tested without one."""

import ctypes
import json
import shutil
import struct
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from safetensors.numpy import load_file

from benchmarks.gpu import Options
from benchmarks.gpu_harness.job import PARTS, Job
from benchmarks.gpu_harness.libraries import (
    LibraryError,
    find_section,
    hash_name,
    keep_cards,
    rename_versions,
)
from benchmarks.gpu_harness.pack import Entry, PackOptions, pack, write_parts
from benchmarks.gpu_harness.page import hide_folders, make_page, merge_reports
from benchmarks.gpu_harness.run import read_results, run_part, run_parts, share_time
from benchmarks.gpu_harness.sections import list_arms
from benchmarks.gpu_parts import arms
from benchmarks.gpu_parts.cards import find_peak, list_exchanges
from benchmarks.gpu_parts.speed import list_core_counts
from benchmarks.gpu_parts.torchvision_net import build_copy, build_torchvision_net
from experiments.claims import result
from experiments.claims.runner import conv1_file
from experiments.recipe import CHANGES
from model.dataset.folder import scan_folder
from storage.home import Home
from tests.experiment_runs import make_result

ROOT = Path(__file__).resolve().parents[1]
with_compiler = pytest.mark.skipif(shutil.which("gcc") is None, reason="there is no C compiler")


@pytest.fixture
def job(tmp_path: Path) -> Job:
    for name in ("work", "report"):
        (tmp_path / name).mkdir()
    return Job(
        part="",
        device="cpu",
        quick=True,
        data=None,
        work=tmp_path / "work",
        report=tmp_path / "report",
        seconds=60,
    )


@pytest.mark.parametrize(
    ("name", "teraflops"),
    [
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H200", 989),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA L40S", 362),
        ("NVIDIA L4", 121),
        ("NVIDIA GeForce RTX 4090", 165),
    ],
)
def test_a_cards_peak_is_its_data_sheets(name: str, teraflops: int) -> None:
    assert find_peak(name) == teraflops * 1e12
    assert find_peak("AMD EPYC") is None


def test_towers_exchange_over_nccl_where_it_is_and_over_gloo_otherwise() -> None:
    assert [way.backend for way in list_exchanges(2, nccl=True)] == ["nccl", "gloo", "gloo"]
    assert {way.gpus for way in list_exchanges(8, nccl=True)} == {2}
    assert [way.staged for way in list_exchanges(1, nccl=False)] == [False, True]
    assert [(way.backend, way.gpus) for way in list_exchanges(0, nccl=False)] == [("gloo", 0)]


def test_cores_are_doubled_up_to_those_there_are() -> None:
    assert list_core_counts(16) == [1, 2, 4, 8, 16]
    assert list_core_counts(6) == [1, 2, 4, 6]


def test_every_arm_of_the_recipes_experiment_is_trained_once() -> None:
    names = [name for some in arms.RECIPE_ARMS for name in some]
    assert sorted(names) == sorted(CHANGES)
    assert {name for some in arms.SCALES for name in some} <= set(CHANGES)


def test_the_copy_of_torchvisions_network_has_its_layers() -> None:
    with torch.device("meta"):
        copy, truth = build_copy(1000), build_torchvision_net(1000)
    shapes = [[tuple(p.shape) for p in network.parameters()] for network in (copy, truth)]
    assert shapes[0] == shapes[1]
    kinds = [
        [type(m).__name__ for m in network.modules() if not list(m.children())]
        for network in (copy, truth)
    ]
    assert [k for k in kinds[0] if k != "Flatten"] == kinds[1]


def test_a_part_without_time_or_photographs_is_skipped(job: Job) -> None:
    results = run_parts([PARTS["whole"], PARTS["machine"]], job, 1.0, lambda _line: None)
    assert {name: result["status"] for name, result in results.items()} == {
        "whole": "skipped",
        "machine": "skipped",
    }
    assert json.loads((job.report / "report.json").read_text()) == results


def test_later_parts_keep_the_time_that_they_should_take() -> None:
    whole, layers, machine = (PARTS[name] for name in ("whole", "layers", "machine"))
    assert share_time(machine, [whole, layers], 1000.0, quick=False) == machine.seconds
    left = whole.expected + layers.expected + machine.expected + 1
    assert share_time(machine, [whole, layers], left, quick=False) == machine.expected + 1
    # Even if there is too little for all, the earlier part gets its own.
    assert share_time(machine, [whole, layers], 20.0, quick=False) == machine.expected
    assert share_time(machine, [], 5.0, quick=False) == 5.0
    everything = sum(part.expected for part in PARTS.values())
    assert everything <= Options.__dataclass_fields__["seconds"].default


def test_a_part_is_ended_at_its_deadline(job: Job) -> None:
    result = run_part(PARTS["machine"], job, 0.2)
    assert result["status"] in ("failed", "stopped")
    assert "deadline" in result["error"]
    assert result["seconds"] < 30


@pytest.mark.slow
def test_a_part_that_fails_stops_no_other_and_leaves_its_traceback(
    job: Job, tmp_path: Path
) -> None:
    (tmp_path / "nothing").mkdir()
    words = ["--device", "cpu", "--quick", "--data", tmp_path / "nothing"]
    words += ["--report", job.report, "--work", job.work, "--only", "whole", "towers", "machine"]
    done = subprocess.run(
        [sys.executable, "benchmarks/gpu.py", *map(str, words)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    results = read_results(job.work)
    assert results["whole"]["status"] == "failed"
    assert "DataError" in results["whole"]["error"] or "FolderError" in results["whole"]["error"]
    assert results["machine"]["status"] == results["towers"]["status"] == "finished"
    (exchange,) = results["towers"]["figures"]["tries"].values()
    for errors in exchange["errors"]:
        assert errors["logits"] < 1e-5
        assert errors["worst gradient"] < 1e-4
    assert json.loads((job.report / "report.json").read_text()).keys() == results.keys()


def test_the_towers_runs_come_back_as_they_are_committed(job: Job) -> None:
    measured = {"first half": 0.5, "second half": 0.25, "p": 0.001}
    done = replace(make_result("two towers", 0, [0.5]), measured=measured)
    bad = replace(make_result("one half", 1, []), errors={}, diverged="loss is nan")
    for run in (done, bad):
        run.write(arms.runs_folder(job) / "colour-towers" / f"{run.arm}.json")
    file = conv1_file(done, Home(root=job.work))
    file.parent.mkdir(parents=True)
    np.save(file, np.ones((96, 3, 11, 11), np.float32))
    arms.keep_runs(job)
    kept = result.read_results(job.report / arms.RUNS)
    assert kept == [bad, done]
    assert list(load_file(job.report / arms.CONV1)) == ["two towers, seed 0"]
    figures = {"recipe": [], "towers": arms.list_runs(job), "ended": {}}
    page = "\n".join(list_arms(figures))
    assert "| two towers | 40 | 0 | 24.00 | 0.500 | 0.250 | 0.0010 |" in page
    assert "| one half | 40 | 1 | diverged | – | – | – |" in page


def test_what_was_recorded_stays_when_a_step_fails(job: Job) -> None:
    own = Job(**{**vars(job), "part": "layers", "figures": {}})
    own.record(first=1.0)
    own.attempt("second", lambda: 1 / 0)
    (result,) = read_results(job.work).values()
    assert result["status"] == "stopped"
    assert result["figures"]["first"] == 1.0
    assert "ZeroDivisionError" in result["figures"]["second"]["error"]


def test_of_several_reports_the_last_that_finished_counts() -> None:
    def result(status: str, value: int) -> dict[str, object]:
        return {"status": status, "figures": {"value": value} if value else {}}

    merged = merge_reports(
        [
            {"speed": result("finished", 1), "towers": result("stopped", 2)},
            {"speed": result("failed", 0), "towers": result("skipped", 0)},
            {"machine": result("finished", 3), "speed": result("finished", 4)},
        ]
    )
    values = {name: found["figures"]["value"] for name, found in merged.items()}
    assert values == {"machine": 3, "speed": 4, "towers": 2}
    assert list(merged) == ["machine", "speed", "towers"]


def test_folders_of_a_machine_are_left_out_of_what_is_kept() -> None:
    text = 'File "/opt/torch/lib/python3.12/x.py", line 3: experiments/recipe.py, 1.5 images/s'
    assert hide_folders(text) == 'File "…/x.py", line 3: experiments/recipe.py, 1.5 images/s'


def test_the_page_of_a_report_that_is_not_whole_says_what_failed() -> None:
    figures = {"tries": {"gloo on one card": {"error": "code 1\nRuntimeError: no CUDA tensors"}}}
    eager = {"ours": {"error": "RuntimeError: out of memory"}}
    speed = {"settings": {"eager": eager}, "operations_per_image": {}}
    report = {
        "speed": {"status": "stopped", "seconds": 9.0, "error": "its deadline", "figures": speed},
        "towers": {"status": "finished", "seconds": 9.0, "error": "", "figures": figures},
        "search": {"status": "failed", "seconds": 1.0, "error": "no faiss", "figures": {}},
    }
    page = make_page(report)
    for words in ("no CUDA tensors", "its deadline", "no faiss", "out of memory"):
        assert words in page
    assert "No report" not in page
    assert "No report" in make_page({})


def test_parts_of_a_pack_stay_below_the_limit_and_hold_everything(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    entries = [Entry(f"folder/{n}", random.bytes(3000), stored=n % 2 == 0) for n in range(20)]
    files = write_parts(iter(entries), tmp_path, 10_000)
    assert len(files) >= 7
    assert all(file.stat().st_size <= 10_000 for file in files)
    found = {
        name: archive.read(name)
        for file in files
        for archive in [zipfile.ZipFile(file)]
        for name in archive.namelist()
    }
    assert found == {entry.name: entry.content for entry in entries}
    with pytest.raises(ValueError, match="large"):
        write_parts(iter([Entry("large", random.bytes(20_000), stored=True)]), tmp_path, 10_000)


def test_a_pack_holds_code_packages_and_photographs_that_can_be_trained_on(
    tmp_path: Path,
) -> None:
    data, to, unpacked = tmp_path / "data", tmp_path / "to", tmp_path / "unpacked"
    ramp = np.linspace(0, 255, 300).astype(np.uint8)
    square = np.stack([np.tile(ramp, (300, 1)), np.tile(ramp[:, None], (1, 300))] * 2, 2)[..., :3]
    for split in ("train", "val"):
        for name in ("n01440764", "n02102040"):
            folder = data / split / name
            folder.mkdir(parents=True)
            for number in range(2):
                Image.fromarray(square).save(folder / f"{number}.png")
    options = PackOptions(data=data, to=to, part_mib=1.0, faiss=False, images=1)
    files = pack(options, Console(quiet=True))
    assert len(files) > 1
    for file in files:
        assert file.stat().st_size <= 2**20
        with zipfile.ZipFile(file) as archive:
            archive.extractall(unpacked)
    for name in (
        "benchmarks/gpu.py",
        "site/tyro/__init__.py",
        "training/optimisation/loop.py",
        "pyproject.toml",
    ):
        assert (unpacked / name).is_file(), name
    truth, found = scan_folder(data), scan_folder(unpacked / "data")
    assert found.classes == truth.classes
    assert (len(found.train), len(found.val)) == (2, 2)
    image = Image.open(found.root / found.train[0].path)
    assert image.size == (256, 256)
    expected = Image.fromarray(square).resize((256, 256), Image.Resampling.BICUBIC)
    difference = np.asarray(image, float) - np.asarray(expected, float)
    assert np.abs(difference).mean() < 4


def test_names_are_hashed_as_elf_files_do() -> None:
    # As `readelf -V` shows for any program.
    assert hash_name("GLIBC_2.2.5") == 0x09691A75
    assert hash_name("GLIBC_2.14") == 0x06969194


@with_compiler
def test_a_library_takes_the_next_version_of_one_that_it_needs(tmp_path: Path) -> None:
    for version in (1, 2):
        build_library(tmp_path, version)
    (tmp_path / "user.c").write_text("int answer(void); int ask(void) { return answer(); }")
    link = ["gcc", "-shared", "-fPIC", "user.c", "libmade.so.1", "-Wl,-rpath,$ORIGIN"]
    subprocess.run([*link, "-o", "libuser.so"], cwd=tmp_path, check=True)
    (tmp_path / "libmade.so.1").unlink()
    with pytest.raises(OSError, match=r"libmade\.so\.1"):
        ctypes.CDLL(str(tmp_path / "libuser.so"))
    library = bytearray((tmp_path / "libuser.so").read_bytes())
    rename_versions(library, {"libmade.so.1": "libmade.so.2"})
    (tmp_path / "renamed.so").write_bytes(library)
    assert ctypes.CDLL(str(tmp_path / "renamed.so")).ask() == 2
    with pytest.raises(LibraryError, match="length"):
        rename_versions(library, {"libmade.so.2": "libmade.so.10"})


def build_library(folder: Path, version: int) -> None:
    """Build libmade.so.N, whose function returns N and has a version of the library's name."""
    name = f"libmade.so.{version}"
    (folder / "made.c").write_text(f"int answer(void) {{ return {version}; }}")
    (folder / "made.map").write_text(f"{name} {{ global: answer; }};")
    link = ["gcc", "-shared", "-fPIC", "made.c", f"-Wl,-soname,{name}"]
    link += ["-Wl,--version-script=made.map", "-o", name]
    subprocess.run(link, cwd=folder, check=True)


@with_compiler
def test_code_for_other_cards_is_emptied_and_nothing_moves(tmp_path: Path) -> None:
    codes = [(2, 80, b"a" * 64), (2, 90, b"b" * 128), (1, 90, b"c" * 64)]
    (tmp_path / "codes.bin").write_bytes(b"".join(make_fatbin(codes) for _ in range(2)))
    (tmp_path / "codes.c").write_text(
        '__asm__(".section .nv_fatbin,\\"a\\"\\n.balign 8\\n.incbin \\"codes.bin\\"\\n.text");'
    )
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "codes.c", "-o", "codes.so"], cwd=tmp_path, check=True
    )
    before = (tmp_path / "codes.so").read_bytes()
    library = bytearray(before)
    assert keep_cards(library, {90}) == 2 * 128
    assert len(library) == len(before)
    assert library == before.replace(b"a" * 64, bytes(64)).replace(b"c" * 64, bytes(64))
    section = find_section(library, ".nv_fatbin")
    assert library[section.start : section.start + section.size].count(b"b") == 256
    with pytest.raises(LibraryError, match="no section"):
        find_section(library, ".missing")
    with pytest.raises(LibraryError, match="ELF"):
        find_section(bytearray(100), ".text")


def make_fatbin(codes: list[tuple[int, int, bytes]]) -> bytes:
    """Make a collection of codes, (kind, compute capability, code) each, as CUDA's tools do."""
    body = b""
    for kind, card, code in codes:
        head = struct.pack("<HHIQ", kind, 0x101, 64, len(code))
        body += head + bytes(12) + struct.pack("<I", card) + bytes(32) + code
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(body)) + body
