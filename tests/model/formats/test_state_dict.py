"""State dicts of this project's names, and files of torch's that are more than tensors."""

import os
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from model.formats import state_dict
from model.formats.exporting import write_state_dict
from model.formats.importing import ImportOptions, import_weights
from model.formats.network import FormatError
from model.network.alexnet import AlexNet
from model.network.architectures import VARIANTS
from model.network.config import AlexNetConfig
from model.weights.checkpoint import Weights, save_weights

SMALL = AlexNetConfig(classes=3, crop=67)
CIFAR = replace(VARIANTS["cifar"].config, classes=3)


@pytest.fixture(scope="module")
def cifar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tensors of the smallest network, as torch saves them."""
    path = tmp_path_factory.mktemp("cifar") / "cifar.pth"
    torch.save(AlexNet(CIFAR).state_dict(), path)
    return path


def test_the_network_is_found_by_the_shapes(cifar: Path) -> None:
    imported = import_weights(cifar)
    assert imported.weights.config == CIFAR
    state = torch.load(cifar, weights_only=True)
    assert all(torch.equal(imported.weights.state[name], value) for name, value in state.items())
    # cifar-tanh has the same shapes.
    assert any("cifar-tanh" in sentence for sentence in imported.assumptions)
    named = import_weights(cifar, ImportOptions(variant="cifar-tanh"))
    assert named.weights.config.activation == "tanh"
    assert not any("--variant" in sentence for sentence in named.assumptions)


def test_an_exported_state_dict_describes_its_network(
    weights_of: Callable[..., Weights], tmp_path: Path
) -> None:
    weights = weights_of(replace(SMALL, lrn_k=1.5), ["a", "b", "c"])
    write_state_dict(weights, tmp_path / "small.safetensors")
    imported = import_weights(tmp_path / "small.safetensors", ImportOptions(mean=(1, 2, 3)))
    assert imported.weights.config == weights.config
    assert imported.weights.classes == weights.classes
    assert imported.weights.mean[:, 5, 5].tolist() == [1, 2, 3]
    assert not imported.assumptions
    # A weights file of this project is taken as it is.
    save_weights(weights, tmp_path / "whole.safetensors")
    assert import_weights(tmp_path / "whole.safetensors").weights.identity == weights.identity


def test_wrapped_and_half_precise_state_dicts_are_read(cifar: Path, tmp_path: Path) -> None:
    state = torch.load(cifar, weights_only=True)
    halves = OrderedDict((f"module.{name}", value.half()) for name, value in state.items())
    torch.save({"epoch": 3, "state_dict": halves}, tmp_path / "checkpoint.pth")
    found = import_weights(tmp_path / "checkpoint.pth").weights.state
    assert all(torch.equal(found[name], value.half().float()) for name, value in state.items())


class Command:
    """What a hostile pickle holds."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.file}",)


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path) -> None:
    proof = tmp_path / "it-was-run"
    torch.save({"conv1.weight": Command(proof)}, tmp_path / "zipped.pth")
    torch.save(
        {"conv1.weight": Command(proof)},
        tmp_path / "old.pth",
        _use_new_zipfile_serialization=False,
    )
    (tmp_path / "bare.pth").write_bytes(pickle.dumps(Command(proof), protocol=2))
    for name in ("zipped.pth", "old.pth", "bare.pth"):
        with pytest.raises(FormatError, match=r"is refused: it is a pickle that would run \w+\.sy"):
            import_weights(tmp_path / name)
    # torch does not read the newer protocols far enough to find the command.
    (tmp_path / "newer.pth").write_bytes(pickle.dumps(Command(proof), protocol=4))
    with pytest.raises(FormatError, match="is refused: it is a pickle of another kind"):
        import_weights(tmp_path / "newer.pth")
    assert not proof.exists()


def test_other_files_are_refused_in_words(cifar: Path, tmp_path: Path) -> None:
    def refused(data: bytes, said: str, name: str = "file.pth") -> None:
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ValueError, match=said):
            import_weights(tmp_path / name)

    whole = cifar.read_bytes()
    refused(b"", "is empty")
    refused(b"hello, I am no weights", "of no format that is read")
    refused(b"\x89HDF\r\n\x1a\n", "HDF5")
    for length in (10, 1000, len(whole) // 2, len(whole) - 1):
        refused(whole[:length], "cannot be read as a file of tensors")
    refused((100).to_bytes(8, "little") + b'{"x', "cannot be read as a safetensors file")
    torch.save([torch.zeros(2)], tmp_path / "list.pth")
    refused((tmp_path / "list.pth").read_bytes(), "holds no state dict")
    torch.save({"conv1.weight": "text"}, tmp_path / "text.pth")
    refused((tmp_path / "text.pth").read_bytes(), r"conv1\.weight is not a tensor")
    with pytest.raises(FormatError, match="cannot be read: No such file"):
        import_weights(tmp_path / "absent.pth")
    with pytest.raises(FormatError, match="cannot be read: Is a directory"):
        import_weights(tmp_path)
    # One stored number that claims to be a hundred million is not copied so often.
    huge = torch.zeros(1).expand(100_000, 100_000)
    torch.save({"conv1.weight": huge}, tmp_path / "huge.pth")
    refused((tmp_path / "huge.pth").read_bytes(), r"conv1\.weight has shape \[100000, 100000\]")


def test_a_file_that_unpacks_to_more_than_any_network_is_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_dict, "MAX_PICKLE_BYTES", 1_000_000)
    file = tmp_path / "bomb.pth"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data/0", bytes(2_000_000))
    assert file.stat().st_size < 10_000
    with pytest.raises(FormatError, match="more than any AlexNet has"):
        import_weights(file)


def test_names_and_descriptions_that_are_wrong_are_named(tmp_path: Path) -> None:
    state = AlexNet(CIFAR).state_dict()
    file = tmp_path / "wrong.safetensors"
    renamed = {name.replace("conv1", "first"): value for name, value in state.items()}
    save_file(renamed, file)
    with pytest.raises(FormatError, match=r"conv1\.weight is missing"):
        import_weights(file)
    save_file(state, file, metadata={"config": '{"net": "resnet"}'})
    with pytest.raises(FormatError, match="description of the network is wrong"):
        import_weights(file)
    save_file(state, file, metadata={"classes": "[1, 2]"})
    with pytest.raises(FormatError, match="list of classes is wrong"):
        import_weights(file)
    save_file(state, file)
    with pytest.raises(FormatError, match="does not fit the network one-gpu"):
        import_weights(file, ImportOptions(variant="one-gpu"))
