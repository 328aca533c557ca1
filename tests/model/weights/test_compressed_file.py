"""A compressed weights file is read as the plain file of the same network would be."""

import json
import math
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from model.network.alexnet import AlexNet
from model.network.architectures import VARIANTS
from model.weights.checkpoint import Weights, load_weights, read_tensors, save_weights
from model.weights.header import WeightsError, read_weights_header


@pytest.fixture(scope="module")
def weights(weights_of: Callable[..., Weights]) -> Weights:
    """Weights whose layers are mostly zero and share few values."""
    config = replace(VARIANTS["cifar"].config, classes=3, init="he")
    torch.manual_seed(2)
    state = AlexNet(config).state_dict()
    pruned = {k: (v / v.std() / 1.6).round() / 4 for k, v in state.items() if "weight" in k}
    mean = 100 + torch.rand(3, 32, 32)
    return weights_of(config, mean=mean, state=state | pruned, top1_error=0.25)


@pytest.fixture(scope="module")
def files(weights: Weights, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("weights")
    files = {name: folder / f"{name}.safetensors" for name in ("plain", "compressed")}
    save_weights(weights, files["plain"])
    save_weights(weights, files["compressed"], compressed=True)
    return files


def test_it_is_the_same_network_in_fewer_bytes(weights: Weights, files: dict[str, Path]) -> None:
    plain, read = load_weights(files["plain"]), load_weights(files["compressed"])
    assert files["compressed"].stat().st_size < files["plain"].stat().st_size / 8
    assert read.identity == plain.identity == weights.identity
    assert read.state.keys() == plain.state.keys()
    assert all(torch.equal(read.state[name], tensor) for name, tensor in plain.state.items())
    assert torch.equal(read.mean, plain.mean)
    x = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        logits = [one.build_network()(x).logits for one in (plain, read)]
    assert torch.equal(*logits)


def test_its_header_is_that_of_all_weights(weights: Weights, files: dict[str, Path]) -> None:
    plain, read = (read_weights_header(file) for file in files.values())
    assert (plain.compressed, read.compressed) == (False, True)
    assert replace(read, compressed=False) == plain
    assert read.identity == weights.identity
    assert read.provenance.top1_error == 0.25


def test_the_way_back_gives_the_plain_file(files: dict[str, Path], tmp_path: Path) -> None:
    save_weights(load_weights(files["compressed"]), tmp_path / "back")
    (old_header, old), (header, back) = map(read_tensors, (files["plain"], tmp_path / "back"))
    assert header == old_header
    assert back.keys() == old.keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in old.items())


def test_a_reader_written_from_the_documentation_reads_it(
    weights: Weights, files: dict[str, Path]
) -> None:
    header, tensors = read_tensors(files["compressed"])
    shapes = json.loads(header["compression"])["shapes"]
    parts = {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}
    expected = {**weights.state, "mean_image": weights.mean}
    assert shapes.keys() >= expected.keys()
    for name in ("conv2.weight", "fc10.weight", "mean_image"):
        size = math.prod(shapes[name])
        sparse = f"{name}.gaps" in parts
        values = read_sparse(parts, name, size) if sparse else read_planes(parts, name, size)
        assert sparse == (name != "mean_image")
        assert torch.equal(torch.tensor(values).reshape(shapes[name]), expected[name]), name


def read_sparse(parts: dict[str, bytes], name: str, size: int) -> list[float]:
    codebook = [value for (value,) in struct.iter_unpack("<f", parts[f"{name}.codebook"])]
    codes = iter(zlib.decompress(parts[f"{name}.codes"]))
    values: list[float] = []
    for gap in zlib.decompress(parts[f"{name}.gaps"]):
        values += [0.0] * gap
        if gap < 255:
            values.append(codebook[next(codes)])
    return values + [0.0] * (size - len(values))


def read_planes(parts: dict[str, bytes], name: str, size: int) -> list[float]:
    planes, bits, values = zlib.decompress(parts[f"{name}.planes"]), 0, []
    for place in range(size):
        folded = sum(planes[plane * size + place] << 8 * plane for plane in range(4))
        step = -(folded + 1) // 2 if folded % 2 else folded // 2
        bits = (bits + step) % 2**32
        values += struct.unpack("<f", bits.to_bytes(4, "little"))
    return values


def test_any_weights_can_be_written_so(weights_of: Callable[..., Weights], tmp_path: Path) -> None:
    weights = weights_of(replace(VARIANTS["cifar-24"].config, classes=2))
    save_weights(weights, tmp_path / "file", compressed=True)
    assert load_weights(tmp_path / "file").identity == weights.identity


@pytest.mark.parametrize("share", [0.001, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_refused(files: dict[str, Path], tmp_path: Path, share: float) -> None:
    data = files["compressed"].read_bytes()
    (tmp_path / "cut").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(WeightsError, match="cut"):
        load_weights(tmp_path / "cut")


@settings(deadline=None, max_examples=50)
@given(data=st.data())
def test_no_changed_byte_goes_unnoticed(
    weights: Weights, files: dict[str, Path], data: st.DataObject
) -> None:
    content = bytearray(files["compressed"].read_bytes())
    first = 8 + int.from_bytes(content[:8], "little")  # after the header
    content[data.draw(st.integers(first, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path = files["compressed"].with_name("changed")
    path.write_bytes(content)
    try:
        read = load_weights(path)
    except WeightsError:
        return
    assert read.identity == weights.identity


def change(file: Path, to: Path, header: dict[str, str | None], **tensors: Tensor | None) -> Path:
    """The same file with parts of its header and tensors replaced, or left out where None."""
    old, values = read_tensors(file)
    values = {k: v for k, v in {**values, **tensors}.items() if v is not None}
    save_file(values, to, metadata={k: v for k, v in {**old, **header}.items() if v is not None})
    return to


def test_a_file_that_does_not_fit_itself_is_refused_by_name(
    files: dict[str, Path], tmp_path: Path
) -> None:
    file, path = files["compressed"], tmp_path / "changed"
    with pytest.raises(WeightsError, match="compressed in version 2, this version reads 1"):
        load_weights(change(file, path, {"compression": '{"version": 2}'}))
    for nonsense in ("{", "[]", "3", "{}"):
        with pytest.raises(WeightsError, match="not a weights file of this project"):
            load_weights(change(file, path, {"compression": nonsense}))
    # Read as plain weights, it has none of their tensors.
    with pytest.raises(WeightsError, match="mean_image"):
        load_weights(change(file, path, {"compression": None}))
    with pytest.raises(WeightsError, match=r"conv1\.weight is damaged: its codes are missing"):
        load_weights(change(file, path, {}, **{"conv1.weight.codes": None}))
    with pytest.raises(WeightsError, match=r"conv7\.weight\.gaps is unexpected"):
        load_weights(change(file, path, {}, **{"conv7.weight.gaps": torch.zeros(1)}))
    codebook = read_tensors(file)[1]["local3.weight.codebook"].clone()
    codebook[2] += 1e-3
    with pytest.raises(WeightsError, match="is damaged"):
        load_weights(change(file, path, {}, **{"local3.weight.codebook": codebook}))


@pytest.mark.parametrize(
    "fields",
    [
        {"classes": 10**12},
        {"classes": 10**20},
        {"side": 10**10, "crop": 10**10},
        {"side": 10**7, "crop": 10**7},
        {"side": 10**6},
        {"crop": 31},
    ],
)
def test_a_header_of_another_network_is_refused(
    files: dict[str, Path], tmp_path: Path, fields: dict[str, int]
) -> None:
    header = json.loads(read_tensors(files["compressed"])[0]["config"]) | fields
    file = change(files["compressed"], tmp_path / "changed", {"config": json.dumps(header)})
    with pytest.raises(WeightsError):
        load_weights(file)
