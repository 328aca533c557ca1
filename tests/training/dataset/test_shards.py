"""Tar shards in webdataset's layout, from a folder and from a server on this machine."""

import io
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import webdataset

from model.dataset.folder import ClassName, ImageFolder
from model.image.preprocess import read_square
from training.dataset.find_source import find_source
from training.dataset.prepare import DataError, PreparedDataset, UnfinishedError, prepare
from training.dataset.shards import Shards

Member = tuple[str, bytes]


def ignore(_count: int) -> None:
    """Nobody looks at the progress."""


def write_tar(path: Path, members: list[Member]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


@pytest.fixture(scope="module")
def sharded(folder: ImageFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The test photographs in three shards and two, written by webdataset itself."""
    root = tmp_path_factory.mktemp("sharded")
    for split, photographs, size in (("train", folder.train, 8), ("val", folder.val, 6)):
        for start in range(0, len(photographs), size):
            with webdataset.TarWriter(str(root / f"{split}-{start // size:03d}.tar")) as out:
                for photograph in photographs[start : start + size]:
                    file = folder.root / photograph.path
                    key = photograph.path.removesuffix(file.suffix).replace("/", "_")
                    picture = {file.suffix.removeprefix("."): file.read_bytes()}
                    out.write({"__key__": key, "cls": photograph.class_index, **picture})
    return root


@pytest.fixture
def copy(sharded: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    root = tmp_path / "copy"
    root.mkdir()
    for file in sharded.iterdir():
        (root / file.name).write_bytes(file.read_bytes())
    return root


def same_images(found: PreparedDataset, folder: ImageFolder) -> None:
    for split, photographs in ((found.train, folder.train), (found.val, folder.val)):
        pixels = [read_square(folder.root / photograph.path) for photograph in photographs]
        np.testing.assert_array_equal(split.read(np.arange(len(split))), np.stack(pixels))
        assert split.classes.tolist() == [photograph.class_index for photograph in photographs]


def spoil(root: Path, name: str, members: list[Member]) -> str:
    """Give a folder of shards one that holds these; what is said about it."""
    write_tar(root / name, members)
    with pytest.raises(DataError) as caught:
        prepare(find_source(str(root)), root / "store", ignore, side=32)
    said = str(caught.value)
    assert "\n" not in said
    if (root / "store").exists():
        assert not [path for path in (root / "store").iterdir() if path.is_dir()]
    return said


def picture(folder: ImageFolder, row: int = 0) -> bytes:
    return (folder.root / folder.train[row].path).read_bytes()


# What is read


def test_shards_give_what_their_folder_gave(
    sharded: Path, folder: ImageFolder, prepared: PreparedDataset, tmp_path: Path
) -> None:
    source = find_source(str(sharded))
    assert isinstance(source, Shards)
    counts: list[int] = []
    found = prepare(source, tmp_path, counts.append)
    same_images(found, folder)
    assert sum(counts) == 36
    assert found.mean.equal(prepared.mean)
    assert found.class_names == tuple(ClassName(str(n), str(n)) for n in range(3))
    assert found.root == sharded
    again = prepare(find_source(str(sharded)), tmp_path, ignore)
    assert again.key == found.key
    assert again.class_names == found.class_names


def test_classes_come_from_the_file_beside_them(copy: Path, tmp_path: Path) -> None:
    (copy / "classes.txt").write_text("zebra a striped one\nant\nn01440764\n")
    found = prepare(find_source(str(copy)), tmp_path / "store", ignore, side=32)
    labels = [("zebra", "a striped one"), ("ant", "ant"), ("n01440764", "tench")]
    assert [(name.folder, name.label) for name in found.class_names] == labels
    assert found.train.classes.tolist() == [0] * 8 + [1] * 8 + [2] * 8
    (copy / "classes.txt").write_text("ant\nbee\nzebra\n")
    renamed = prepare(find_source(str(copy)), tmp_path / "store", ignore, side=32)
    assert renamed.key != found.key
    assert [name.label for name in renamed.class_names] == ["ant", "bee", "zebra"]


@pytest.mark.parametrize("suffix", ["cls", "txt"])
@pytest.mark.parametrize("file", [None, "n02102040\nn01440764 a fish\n"])
def test_samples_may_name_their_class(
    folder: ImageFolder, tmp_path: Path, suffix: str, file: str | None
) -> None:
    for split in ("train", "val"):
        members: list[Member] = [("README.txt", b"not a sample"), ("LICENSE", b"")]
        for row, name in enumerate((b"n02102040\n", b"n01440764", b"n02102040")):
            jpeg, label = (f"all/{row}.JPEG", picture(folder, row)), (f"all/{row}.{suffix}", name)
            members += [jpeg, label] if row else [label, jpeg]
        write_tar(tmp_path / f"{split}-0.tar", members)
    if file:
        (tmp_path / "classes.txt").write_text(file)
    found = prepare(find_source(str(tmp_path)), tmp_path / "store", ignore, side=32)
    assert found.unreadable == ()
    if file:
        assert [name.label for name in found.class_names] == ["English springer", "a fish"]
        assert found.train.classes.tolist() == [0, 1, 0]
    else:
        assert [name.label for name in found.class_names] == ["tench", "English springer"]
        assert found.train.classes.tolist() == [1, 0, 1]


def test_unreadable_samples_are_named_and_left_out(
    copy: Path, folder: ImageFolder, tmp_path: Path
) -> None:
    members = [
        ("a.jpg", b"not an image"),
        ("a.cls", b"0"),
        ("b.jpg", picture(folder)),
        ("b.cls", b"0"),
        ("c.raw", b"no picture"),
        ("c.cls", b"1"),
        ("d.png", b""),
        ("d.cls", b"1"),
    ]
    write_tar(copy / "train-009.tar", members)
    found = prepare(find_source(str(copy)), tmp_path / "store", ignore, side=32)
    assert len(found.train) == 25
    for line, key, why in zip(
        found.unreadable, "acd", ("not an image", "has no .jpg", "is empty"), strict=True
    ):
        assert line.startswith(f"{copy / 'train-009.tar'}: {key}")
        assert why in line


def test_an_interruption_keeps_the_shards_that_were_done(
    sharded: Path, folder: ImageFolder, tmp_path: Path
) -> None:
    seen = 0

    def interrupt(count: int) -> None:
        nonlocal seen
        seen += count
        if seen == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(find_source(str(sharded)), tmp_path, interrupt)
    counts: list[int] = []
    same_images(prepare(find_source(str(sharded)), tmp_path, counts.append), folder)
    assert counts == [16] + [1] * 20


# What is wrong


def test_a_sample_without_its_class_is_named(copy: Path, folder: ImageFolder) -> None:
    said = spoil(copy, "train-001.tar", [("deep/x.jpg", picture(folder))])
    assert f"{copy / 'train-001.tar'}: deep/x has no class" in said
    said = spoil(copy, "train-001.tar", [("x.jpg", picture(folder)), ("x.cls", b" \n")])
    assert "x has no class" in said
    said = spoil(copy, "train-001.tar", [("x.jpg", picture(folder)), ("x.cls", b"\xff")])
    assert "x.cls is not UTF-8 text" in said


def test_an_index_beyond_the_classes_is_named(copy: Path, folder: ImageFolder) -> None:
    (copy / "classes.txt").write_text("a\nb\nc\n")
    for wrong in (b"3", b"d"):
        said = spoil(copy, "val-001.tar", [("x.jpg", picture(folder)), ("x.cls", wrong)])
        assert f"val-001.tar: x has the class {wrong.decode()}" in said
        assert "3 classes, 0 to 2" in said
    said = spoil(copy, "val-001.tar", [("x.jpg", picture(folder)), ("x.cls", b"-1")])
    assert "x has the class index -1" in said


def test_a_gap_between_the_indices_is_named(copy: Path, folder: ImageFolder) -> None:
    more = [("x.jpg", picture(folder)), ("x.cls", b"12")]
    write_tar(copy / "val-009.tar", more)
    assert "not 3" in spoil(copy, "train-009.tar", more)


def test_classes_that_differ_between_the_two_are_named(copy: Path, folder: ImageFolder) -> None:
    said = spoil(copy, "train-009.tar", [("x.jpg", picture(folder)), ("x.cls", b"3")])
    assert f"{copy}: train and val must hold the same classes: only train has 3" in said
    (copy / "classes.txt").write_text("a\nb\nc\nd\n")
    said = spoil(copy, "train-009.tar", [("x.jpg", picture(folder)), ("x.cls", b"3")])
    assert "class d of val" in said


def test_one_class_is_too_few(folder: ImageFolder, tmp_path: Path) -> None:
    one = [("x.jpg", picture(folder)), ("x.cls", b"0")]
    write_tar(tmp_path / "val-0.tar", one)
    assert "holds one class, 0; at least two" in spoil(tmp_path, "train-0.tar", one)


def test_shards_of_which_nothing_can_be_read_are_refused(tmp_path: Path) -> None:
    nothing = [("x.jpg", b"not an image"), ("x.cls", b"0")]
    write_tar(tmp_path / "val-0.tar", nothing)
    said = spoil(tmp_path, "train-0.tar", nothing)
    assert f"no photograph in {tmp_path} can be read; the first: {tmp_path}/train-0.tar: x" in said
    write_tar(tmp_path / "val-0.tar", [])
    assert "can be read" in spoil(tmp_path, "train-0.tar", [])


@pytest.mark.parametrize(
    ("text", "why"), [("a\na\n", "the class a twice"), ("a\n", "at least two"), (b"\xff", "UTF-8")]
)
def test_a_classes_file_that_cannot_serve_is_refused(
    copy: Path, text: str | bytes, why: str
) -> None:
    (copy / "classes.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=rf"classes\.txt.*{why}"):
        prepare(find_source(str(copy)), copy / "store", ignore, side=32)


def cut(whole: bytes, end: int) -> bytes:
    return whole[:end]


@pytest.mark.parametrize("name", ["train-000.tar", "train-002.tar", "val-001.tar"])
@pytest.mark.parametrize("what", ["empty", "noise", "in a member", "between members", "no end"])
def test_a_damaged_shard_is_an_error_and_not_a_shorter_set(
    copy: Path, name: str, what: str
) -> None:
    whole = (copy / name).read_bytes()
    with tarfile.open(copy / name) as tar:
        third = tar.getmembers()[2]
        last = tar.getmembers()[-1]
    end = last.offset_data + -(-last.size // 512) * 512
    damaged = {
        "empty": b"",
        "noise": np.random.default_rng(0).bytes(20_000),
        "in a member": whole[: third.offset_data + 10],
        "between members": whole[: third.offset],
        "no end": whole[:end],
    }[what]
    (copy / name).write_bytes(damaged)
    with pytest.raises(DataError, match=rf"^shard .*{name} is damaged: [^\n]+$"):
        prepare(find_source(str(copy)), copy / "store", ignore, side=32)


def test_a_key_that_comes_twice_is_an_error(copy: Path, folder: ImageFolder) -> None:
    twice = [("x.jpg", picture(folder)), ("x.cls", b"0"), ("x.jpg", picture(folder))]
    assert "x.jpg: duplicate file name" in spoil(copy, "train-001.tar", twice)


# From a server


class Handler(SimpleHTTPRequestHandler):
    """Serves a folder; breaks off where it is told to."""

    broken: str = ""
    after: int = 0

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """As the library's, unless it is to break off."""
        if not self.broken or self.broken not in self.path:
            super().do_GET()
            return
        data = Path(self.translate_path(self.path)).read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: self.after])
        self.close_connection = True


@pytest.fixture
def handler() -> type[Handler]:
    class Own(Handler):
        pass

    return Own


@pytest.fixture
def served(copy: Path, handler: type[Handler]) -> Iterator[str]:
    """The shards' address: the folder's, and a slash."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(copy)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


def shards_at(served: str, last: int = 2) -> Shards:
    source = find_source(f"{served}{{train-{{000..{last:03d}}},val-{{000..001}}}}.tar")
    assert isinstance(source, Shards)
    assert len(source.train) == last + 1
    assert len(source.val) == 2
    return source


def test_urls_give_what_the_folder_gave(served: str, folder: ImageFolder, tmp_path: Path) -> None:
    found = prepare(shards_at(served), tmp_path / "store", ignore)
    same_images(found, folder)
    assert found.class_names == tuple(ClassName(str(n), str(n)) for n in range(3))


def test_a_pattern_names_the_shards_of_both(served: str, tmp_path: Path, copy: Path) -> None:
    (copy / "classes.txt").write_text("a\nb\nc the last\n")
    source = find_source(f"{served}{{split}}-{{000..001}}.tar")
    assert isinstance(source, Shards)
    assert source.train == (f"{served}train-000.tar", f"{served}train-001.tar")
    assert source.val == (f"{served}val-000.tar", f"{served}val-001.tar")
    assert source.classes[2] == ClassName("c", "the last")
    # Two of the three training shards: the third class has no photograph in them.
    with pytest.raises(DataError, match=r"no photograph in http.*class c of train"):
        prepare(source, tmp_path / "store", ignore, side=32)


def test_once_prepared_the_server_is_not_needed(
    served: str, handler: type[Handler], copy: Path, tmp_path: Path
) -> None:
    (copy / "classes.txt").write_text("a\nb\nc the last\n")
    first = prepare(shards_at(served), tmp_path / "store", ignore, side=32)
    handler.broken = "/"
    again = prepare(shards_at(served), tmp_path / "store", ignore, side=32)
    assert again.key == first.key
    assert again.class_names == first.class_names
    assert again.class_names[2] == ClassName("c", "the last")


@pytest.mark.parametrize("where", ["in a member", "between members", "before the end"])
def test_a_transfer_that_breaks_off_is_an_error_and_is_taken_up_again(
    served: str, handler: type[Handler], folder: ImageFolder, copy: Path, tmp_path: Path, where: str
) -> None:
    with tarfile.open(copy / "train-002.tar") as tar:
        third = tar.getmembers()[2]
    whole = (copy / "train-002.tar").stat().st_size
    handler.broken = "train-002"
    handler.after = {
        "in a member": third.offset_data + 10,
        "between members": third.offset,
        "before the end": whole - 10,
    }[where]
    with pytest.raises(UnfinishedError, match=r"^shard http.*train-002\.tar cannot be fetched: "):
        prepare(shards_at(served), tmp_path / "store", ignore)
    handler.broken = ""
    counts: list[int] = []
    same_images(prepare(shards_at(served), tmp_path / "store", counts.append), folder)
    assert counts == [16] + [1] * 20


def test_a_shard_that_the_server_has_not_is_named(served: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"train-003\.tar cannot be fetched: .*no such file"):
        prepare(shards_at(served, last=3), tmp_path / "store", ignore, side=32)


def test_a_server_that_is_not_there_is_named(tmp_path: Path) -> None:
    source = find_source("http://127.0.0.1:9/{split}-{0..3}.tar")
    with pytest.raises(DataError, match=r"train-0\.tar cannot be fetched: .*cannot be reached"):
        prepare(source, tmp_path / "store", ignore, side=32)
