"""CIFAR-10: one array file from every kind of source, one line for every fault of it, and augmentation against a loop."""

import io
import json
import pickle
import shutil
import tarfile
import zipfile
from hashlib import md5
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from PIL import Image

from secondlook.cli import main
from secondlook.errors import Mistake
from secondlook.problems import images as cifar
from secondlook.problems.images import CLASSES, PAD, augment, cifar10, normalise

COUNT = {"train": 30, "test": 20}  # in place of 50,000 and 10,000
BUILT = Path("data/cifar10.npy")


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A project whose CIFAR-10 has 50 images, and a folder `given` of data sets."""
    for split, count in COUNT.items():
        monkeypatch.setitem(cifar.COUNT, split, count)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "given").mkdir()
    return tmp_path


def pixels(split: str, label: int, k: int) -> np.ndarray:
    """Image k of a class, (32, 32, 3): smooth, so that a JPEG of it is close, and like no other."""
    rows, columns = np.mgrid[:32, :32]
    channels = [20 * label + rows, 60 * k + columns, (200 if split == "test" else 20) + (rows + columns) // 2]
    return np.stack(channels, -1).astype(np.uint8)


def encoded(image: np.ndarray, kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind, **({"quality": 95, "subsampling": 0} if kind == "jpeg" else {}))
    return file.getvalue()


def image_folder(folder: Path, kind: str = "png", ending: str | None = None) -> Path:
    """An image folder with things beside the images that are none."""
    for split, count in COUNT.items():
        for label, name in enumerate(CLASSES):
            (folder / split / name).mkdir(parents=True)
            for k in range(count // 10):
                (folder / split / name / f"{k:04d}.{ending or kind}").write_bytes(encoded(pixels(split, label, k), kind))
    (folder / "train" / "cat" / "notes.txt").write_text("not an image")
    (folder / "train" / "cat" / "._0000.png").write_text("not an image either")
    return folder


def archive(path: Path, top: str, kind: str = "png") -> Path:
    folder = image_folder(path.parent.parent / "packed", kind)
    files = sorted(folder.rglob("*"), reverse=True)  # an order that is no use
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as packed:
            for file in files:
                packed.write(file, f"{top}{file.relative_to(folder)}")
    else:
        with tarfile.open(path, f"w:{path.suffix[1:]}") as packed:
            for file in files:
                packed.add(file, f"{top}{file.relative_to(folder)}", recursive=False)
    return path


def batches(folder: Path, monkeypatch) -> Path:
    """A small `cifar-10-batches-py`, in a shuffled order, that passes torchvision's checks."""
    from torchvision.datasets import CIFAR10

    (folder / CIFAR10.base_folder).mkdir(parents=True)

    def keep(name: str, value: dict) -> list[str]:
        data = pickle.dumps(value)
        (folder / CIFAR10.base_folder / name).write_bytes(data)
        return [name, md5(data).hexdigest()]

    lists = {}
    for split, count in COUNT.items():
        labels = np.random.default_rng(0).permutation(np.arange(count) % 10)
        rank = [int((labels[:i] == c).sum()) for i, c in enumerate(labels)]  # the how-manieth of its class
        data = [pixels(split, c, k).transpose(2, 0, 1).ravel() for c, k in zip(labels, rank, strict=True)]
        lists[split] = [keep(f"{split}_batch", {"data": np.array(data), "labels": labels.tolist()})]
    name, digest = keep("batches.meta", {"label_names": list(CLASSES)})
    monkeypatch.setattr(CIFAR10, "train_list", lists["train"])
    monkeypatch.setattr(CIFAR10, "test_list", lists["test"])
    monkeypatch.setattr(CIFAR10, "meta", {"filename": name, "md5": digest, "key": "label_names"})
    return folder


def check(origin: str, atol: int = 0) -> None:
    """The array file holds the images in their order."""
    found = cifar10(BUILT)
    assert found.origin == origin and found.train.dtype == torch.uint8 and found.train_labels.dtype == torch.int64
    for split, x, y in (("train", found.train, found.train_labels), ("test", found.test, found.test_labels)):
        assert x.shape == (COUNT[split], 3, 32, 32) and y.tolist() == [i % 10 for i in range(COUNT[split])]
        for i, image in enumerate(x):
            expected = torch.from_numpy(pixels(split, i % 10, i // 10)).permute(2, 0, 1)
            assert (image.int() - expected.int()).abs().max() <= atol


def mistake(capsys, *words: str) -> str:
    """The one line with which a command refuses; nothing is left behind."""
    assert main(["data", *words]) == 1
    error = capsys.readouterr().err
    lines = [line for line in error.splitlines() if line.startswith("secondlook: ")]
    assert len(lines) == 1 and "Traceback" not in error
    assert not BUILT.exists() and not BUILT.with_suffix(".json").exists()
    return lines[0].removeprefix("secondlook: ")


# The array file ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make, origin, atol",
    [
        (lambda given: image_folder(given), "PNG of unchecked origin", 0),
        (lambda given: image_folder(given / "cifar10-small"), "PNG of unchecked origin", 0),
        (lambda given: image_folder(given / "cifar10", "jpeg", "JPG"), "re-encoded JPEG", 4),
        (lambda given: archive(given / "cifar10.tar.xz", ""), "PNG of unchecked origin", 0),
        (lambda given: archive(given / "cifar10.tar.gz", "cifar10/"), "PNG of unchecked origin", 0),
        (lambda given: archive(given / "cifar10-jpeg.zip", "./", "jpeg"), "re-encoded JPEG", 4),
    ],
    ids=["folder itself", "folder", "jpeg folder", "tar.xz", "tar.gz", "zip"],
)  # fmt: skip
def test_an_image_folder_or_archive_becomes_the_array(home, capsys, make, origin, atol):
    make(home / "given")
    assert main(["data", "--data-root", "given"]) == 0
    check(origin, atol)
    assert f"data: 50 images ({origin}) from " in capsys.readouterr().out
    before = BUILT.read_bytes()
    assert main(["data", "--data-root", "given"]) == 0 and BUILT.read_bytes() == before
    assert sorted(path.name for path in Path("data").iterdir()) == [".cifar10.npy.lock", "cifar10.json", "cifar10.npy"]


def test_the_folder_is_found_by_its_environment_variable_and_before_an_archive(home, monkeypatch, capsys):
    archive(home / "given" / "cifar10-a.tar.gz", "")
    image_folder(home / "given" / "cifar10-b", "jpeg")
    monkeypatch.setenv("SECONDLOOK_DATA", "given")
    assert main(["data"]) == 0
    assert "(re-encoded JPEG) from cifar10-b," in capsys.readouterr().out


def test_the_originals_come_through_torchvision_in_the_same_order(home, monkeypatch):
    batches(home / "given", monkeypatch)
    assert main(["data", "--data-root", "given"]) == 0
    check("original")


def test_damaged_originals_are_refused_and_left_as_they_are(home, monkeypatch, capsys):
    given = batches(home / "given", monkeypatch)
    cut(damaged := next(given.rglob("train_batch")))
    before = damaged.read_bytes()
    line = "given/cifar-10-batches-py is corrupt or truncated: remove it, or put it right"
    assert mistake(capsys, "--data-root", "given") == line and damaged.read_bytes() == before


def test_without_a_source_the_originals_are_downloaded_into_the_project(home, monkeypatch):
    from torchvision.datasets import CIFAR10, cifar

    kept = batches(home / "elsewhere", monkeypatch)

    def download(url, root, filename, md5):
        assert (url, filename, md5) == (CIFAR10.url, CIFAR10.filename, CIFAR10.tgz_md5)
        shutil.copytree(kept, root, dirs_exist_ok=True)

    monkeypatch.setattr(cifar, "download_and_extract_archive", download)
    assert main(["data", "--data-root", "given"]) == 0
    check("original")
    assert list((home / "given").iterdir()) == []


def test_a_download_that_fails_is_one_line(home, monkeypatch, capsys):
    from torchvision.datasets import cifar

    def download(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(cifar, "download_and_extract_archive", download)
    line = "no CIFAR-10 in given (cifar10*), and the download into data failed: no route to host"
    assert mistake(capsys, "--data-root", "given") == line


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def altered(path: Path) -> None:
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 100] = bytes(255 - byte for byte in data[middle : middle + 100])
    path.write_bytes(data)


CAT = "given/cifar10/train/cat/0001.png"


@pytest.mark.parametrize(
    "harm, line",
    [
        (lambda: cut(Path(CAT)), "given/cifar10: train/cat/0001.png is corrupt or truncated: "),
        (lambda: Path(CAT).write_text("cat", encoding="utf-8"), "given/cifar10: train/cat/0001.png is corrupt or truncated: "),
        (lambda: Path(CAT).unlink(), "given/cifar10 has 2 images in train/cat, expected 3"),
        (lambda: shutil.copy(CAT, "given/cifar10/test/cat/0009.png"), "given/cifar10 has 3 images in test/cat, expected 2"),
        (lambda: shutil.rmtree("given/cifar10/test/ship"), "given/cifar10 has 0 images in test/ship, expected 2"),
        (lambda: Image.new("RGB", (28, 32)).save(CAT), "given/cifar10: train/cat/0001.png is 28x32 RGB, expected 32x32 RGB"),
        (lambda: Image.new("L", (32, 32)).save(CAT), "given/cifar10: train/cat/0001.png is 32x32 L, expected 32x32 RGB"),
    ],
    ids=["cut", "text", "one missing", "one too many", "class missing", "shape", "grey"],
)  # fmt: skip
def test_a_faulty_image_folder_is_one_line(home, capsys, harm, line):
    image_folder(home / "given" / "cifar10")
    harm()
    assert mistake(capsys, "--data-root", "given").startswith(line)


@pytest.mark.parametrize("harm", [cut, altered, lambda path: path.write_text("not an archive")], ids=["cut", "altered", "text"])
@pytest.mark.parametrize("name", ["cifar10.tar.xz", "cifar10.tar.gz", "cifar10.zip"])
def test_a_faulty_archive_is_one_line(home, capsys, name, harm):
    harm(archive(home / "given" / name, ""))
    line = mistake(capsys, "--data-root", "given")
    assert line.startswith(f"given/{name}") and ("is corrupt or truncated: " in line or "images in" in line)


def test_a_folder_that_is_not_there_is_one_line(home, capsys):
    line = "there is no folder nowhere: --data-root, data_root and SECONDLOOK_DATA name the folder of the data sets"
    assert mistake(capsys, "--data-root", "nowhere") == line


def test_a_second_writer_stops(home, capsys):
    from secondlook.study.files import sole_writer

    image_folder(home / "given")
    with sole_writer(BUILT):
        assert mistake(capsys, "--data-root", "given").startswith("data/cifar10.npy is being written by process ")


# Reading it -------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def built(home):
    image_folder(home / "given")
    assert main(["data", "--data-root", "given"]) == 0


def rewrite(array: np.ndarray) -> None:
    """Another array with a record that vouches for it."""
    np.save(BUILT, array)
    record = json.loads(BUILT.with_suffix(".json").read_text())
    BUILT.with_suffix(".json").write_text(json.dumps({**record, "sha256": cifar.sha256(BUILT)}))


@pytest.mark.parametrize(
    "harm, line",
    [
        (lambda: BUILT.unlink(), "data set data/cifar10.npy is missing: run 'snakemake data', or put it there"),
        (lambda: BUILT.with_suffix(".json").unlink(), "data set data/cifar10.npy is missing: run 'snakemake data', or put it there"),
        (lambda: cut(BUILT), r"data/cifar10.npy is corrupt or truncated: sha256 \w{64} \(76864 bytes\), expected \w{64}"),
        (lambda: altered(BUILT), r"data/cifar10.npy is corrupt or truncated: sha256 \w{64} \(153728 bytes\), expected \w{64}"),
        (lambda: BUILT.with_suffix(".json").write_text("{"), "data/cifar10.json is damaged: run 'snakemake data'"),
        (lambda: BUILT.with_suffix(".json").write_text("[]"), "data/cifar10.json is damaged: run 'snakemake data'"),
        (lambda: rewrite(np.zeros((50, 32, 32, 3), np.uint8)), r"data/cifar10.npy must hold uint8 of shape \(50, 3, 32, 32\), got uint8 of shape \(50, 32, 32, 3\)"),
        (lambda: rewrite(np.zeros((50, 3, 32, 32), np.int8)), r"data/cifar10.npy must hold uint8 of shape \(50, 3, 32, 32\), got int8 of shape \(50, 3, 32, 32\)"),
        (lambda: rewrite(np.array([None])), "data/cifar10.npy is no array file: run 'snakemake data'"),
    ],
    ids=["missing", "no record", "cut", "altered", "record cut", "record of another kind", "shape", "type", "objects"],
)  # fmt: skip
def test_a_faulty_array_is_one_line(built, harm, line):
    harm()
    with pytest.raises(Mistake, match=f"^{line}$"):
        cifar10(BUILT)


def test_a_stage_finds_the_array_in_the_folder_of_the_data_sets_and_then_in_the_projects(built):
    from secondlook.study.needs import data_path

    assert data_path("cifar10.npy", Path("given")) == BUILT
    shutil.copy(BUILT, "given")
    assert data_path("cifar10.npy", Path("given")) == Path("given/cifar10.npy")
    with pytest.raises(Mistake, match="^data set given/a.txt is missing: name its folder .*, or put it there$"):
        data_path("a.txt", Path("given"))


def test_subsets_are_balanced_and_the_first(built):
    whole = cifar10(BUILT)
    part = whole.first(20, 10)
    assert torch.equal(part.train, whole.train[:20]) and torch.equal(part.test, whole.test[:10])
    assert part.train_labels.bincount().tolist() == [2] * 10 and part.test_labels.bincount().tolist() == [1] * 10
    assert (part.origin, part.sha256) == (whole.origin, whole.sha256)
    split = whole.validation(10)
    assert torch.equal(torch.cat([split.train, split.test]), whole.train)
    assert torch.equal(torch.cat([split.train_labels, split.test_labels]), whole.train_labels)
    with pytest.raises(ValueError, match="train must be a multiple of 10 up to 30, got 25"):
        whole.first(25, 10)
    with pytest.raises(ValueError, match="test must be a multiple of 10 up to 20, got 30"):
        whole.first(20, 30)
    with pytest.raises(ValueError, match="count must be a multiple of 10 below 30, got 30"):
        whole.validation(30)


def test_writing_to_the_images_leaves_the_file_alone(built):
    cifar10(BUILT).train.zero_()
    check("PNG of unchecked origin")


def test_the_real_data_set_where_it_is_built():
    path = ROOT / BUILT
    if not path.exists():
        pytest.skip("data/cifar10.npy is not built: python -m secondlook data")
    images = cifar10(path)
    assert images.train.shape == (50_000, 3, 32, 32) and images.test_labels.bincount().tolist() == [1000] * 10
    mean = images.train[:5000].float().mean((0, 2, 3)) / 255  # of a tenth, whose mean is that of all to 0.002 (one sigma)
    torch.testing.assert_close(mean, torch.tensor(cifar.MEAN), rtol=0, atol=0.01)


# Augmentation -----------------------------------------------------------------------------------------------------------------


def batch(count: int, height: int = 32, width: int = 32) -> torch.Tensor:
    return torch.randint(1, 256, (count, 3, height, width), generator=torch.Generator().manual_seed(0)).byte()  # nothing black


def outcomes(image: torch.Tensor) -> list[torch.Tensor]:
    """All 162 of one image: every crop, as it is and mirrored, by slices alone."""
    _, height, width = image.shape
    padded = torch.zeros(3, height + 2 * PAD, width + 2 * PAD, dtype=image.dtype)
    padded[:, PAD:-PAD, PAD:-PAD] = image
    crops = [padded[:, top : top + height, left : left + width] for top in range(2 * PAD + 1) for left in range(2 * PAD + 1)]
    return [found for crop in crops for found in (crop, crop.flip(2))]


@pytest.mark.parametrize("size", [(32, 32), (8, 12)])
def test_an_augmented_image_is_one_of_its_crops_and_mirrored_or_not(size):
    images = batch(20, *size)
    for image, found in zip(images, augment(images, torch.Generator().manual_seed(1)), strict=True):
        assert found.dtype == torch.uint8 and sum(torch.equal(found, each) for each in outcomes(image)) == 1


def test_every_outcome_is_equally_likely():
    """Chi-squared over the 162 outcomes of 16,200 images; a false alarm in one seed of 10^4: 161 degrees of freedom, below 236."""
    image = batch(1, 8, 8)
    known = {bytes(each.contiguous().numpy()): i for i, each in enumerate(outcomes(image[0]))}
    found = augment(image.expand(16_200, -1, -1, -1), torch.Generator().manual_seed(2))
    counts = np.bincount([known[bytes(each.numpy())] for each in found], minlength=162)
    assert ((counts - 100) ** 2 / 100).sum() < 236


def test_augmentation_depends_on_its_generator_alone():
    images, state = batch(8), torch.get_rng_state()
    first, same, other = (augment(images, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4))
    assert torch.equal(first, same) and not torch.equal(first, other) and torch.equal(state, torch.get_rng_state())


def test_normalising_is_the_papers():
    images = batch(4)
    mean, std = (torch.tensor(x, dtype=torch.float64)[:, None, None] for x in (cifar.MEAN, cifar.STD))
    found = normalise(images)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), (images.double() / 255 - mean) / std, rtol=0, atol=1e-6)
