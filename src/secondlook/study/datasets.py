"""Building the array file of CIFAR-10 (`secondlook.problems.images` says what is in it) from whatever source there is.

A source is looked for in the folder of the data sets, in this order:

    an image folder  `train` and `test` in the folder itself, or in one whose name begins with cifar10
    an archive       cifar10*.tar, .tar.gz, .tgz, .tar.xz, .tar.bz2 or .zip, with members as in an image folder
    the originals    `cifar-10-batches-py` as torchvision keeps it, or else downloaded by torchvision, which checks its digests

An image folder is `{train,test}/<class>/*.jpg` or `.png`; what else lies there is ignored, and the images of a class come in
the order of their sorted names. An archive is read member by member and never unpacked to disk; one with members that lead out
of it, that are links in the place of images, or that are more or larger than any copy of CIFAR-10's is refused.

The folder of the data sets is only read: the array file, and a download if there has to be one, go to `data` in the project.
Pillow decodes, as it imports in a moment; torchvision, which brings it along, takes seconds.
"""

import io
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from lzma import LZMAError
from pathlib import Path, PurePosixPath

import numpy as np

from secondlook.errors import Mistake
from secondlook.study.files import read, sha256, sole_writer, to_json, write
from secondlook.study.progress import watch

JPEG, PNG = {".jpg", ".jpeg"}, {".png"}
ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2", ".zip")
ORIGINAL, REENCODED, COPIED = "original", "re-encoded JPEG", "PNG of unchecked origin"
MOST_BYTES, MOST_MEMBERS, LARGEST_IMAGE = 1 << 29, 200_000, 1 << 16  # unpacked; the images as PNG take a third, and 3 kB each
DAMAGE = (tarfile.TarError, zipfile.BadZipFile, EOFError, LZMAError, zlib.error, OSError)


def build_cifar10(data_root: Path, out: Path) -> dict:
    """Write the array file and its record into the folder `out`, from a source in `data_root`. Returns the record."""
    from secondlook.problems.images import ARRAY, RECORD

    if not data_root.is_dir() and data_root != out:
        raise Mistake(
            f"there is no folder {data_root}: --data-root, data_root and SECONDLOOK_DATA name the folder of the data sets"
        )
    with sole_writer(out / ARRAY):
        source = _source(data_root)
        array, origin, name = _image_folder(source) if source else _originals(data_root, out)
        file = io.BytesIO()
        np.save(file, array)
        data = file.getbuffer()
        record = {"origin": origin, "source": name, "images": len(array), "bytes": len(data), "sha256": sha256(data)}
        write(out / ARRAY, data)
        write(out / RECORD, to_json(record))
    return record


def _source(data_root: Path) -> Path | None:
    """The image folder or archive to take: folders before archives, then by name."""
    named = sorted(data_root.glob("cifar10*")) if data_root.is_dir() else []
    folders = [path for path in (data_root, *named) if all((path / split).is_dir() for split in ("train", "test"))]
    return next(iter(folders + [path for path in named if path.name.endswith(ARCHIVES) and path.is_file()]), None)


def _image_folder(source: Path) -> tuple[np.ndarray, str, str]:
    """The array (60000, 3, 32, 32), its origin, and the name of the source."""
    from secondlook.problems.images import CLASSES, COUNT

    found: dict[tuple[str, str], dict[str, bytes]] = {(split, label): {} for split in COUNT for label in CLASSES}
    try:
        for name, content in _members(source):
            *_, split, label, _ = PurePosixPath(name).parts
            found[split, label][name] = content
    except DAMAGE as error:
        raise Mistake(f"{source} is corrupt or truncated: {str(error) or type(error).__name__}") from error
    for (split, label), images in found.items():
        if len(images) != COUNT[split] // len(CLASSES):
            raise Mistake(f"{source} has {len(images)} images in {split}/{label}, expected {COUNT[split] // len(CLASSES)}")
    ordered = []
    for split in COUNT:
        by_class = [sorted(found[split, label].items()) for label in CLASSES]
        ordered += [image for row in zip(*by_class, strict=True) for image in row]  # one of each class, again and again
    array = np.stack([_decode(content, f"{source}: {name}") for name, content in watch(ordered, "decoding")])
    jpeg = any(PurePosixPath(name).suffix.lower() in JPEG for name, _ in ordered)
    return array, REENCODED if jpeg else COPIED, source.name


def _members(source: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of every image of an image folder or archive: those whose path ends in {train,test}/<class>/<image>.
    Raises Mistake for an archive that is not to be trusted, before it reads the member that says so."""
    from secondlook.problems.images import CLASSES, COUNT

    def wanted(name: str) -> bool:
        path = PurePosixPath(name)
        return path.parts[-3:-1] in places and path.suffix.lower() in JPEG | PNG and not path.name.startswith(".")

    places = {(split, label) for split in COUNT for label in CLASSES}
    if source.is_dir():
        for path in sorted(source / split / label for split, label in places):
            yield from ((str(file.relative_to(source)), read(file)) for file in path.glob("*") if wanted(file.as_posix()))
    elif source.suffix == ".zip":
        with zipfile.ZipFile(source) as archive:
            links = (stat.S_ISLNK(info.external_attr >> 16) for info in archive.infolist())
            members = ((i.filename, i.file_size, link, i) for i, link in zip(archive.infolist(), links, strict=True))
            yield from ((name, archive.read(info)) for name, info in _trusted(members, source, wanted))
    else:
        with tarfile.open(source) as tape:
            entries = ((entry.name, entry.size, not entry.isreg(), entry) for entry in tape if not entry.isdir())
            for name, entry in _trusted(entries, source, wanted):
                file = tape.extractfile(entry)
                yield name, file.read() if file else b""


def _trusted(members: Iterable[tuple], source: Path, wanted: Callable[[str], bool]) -> Iterator[tuple]:
    """Name and handle of the wanted among the members of an archive, given as (name, bytes, whether it is a link, handle)."""
    total = 0
    for count, (name, size, link, member) in enumerate(members, 1):
        total += size
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            raise Mistake(f"{source} is refused: its member {name} leads out of it")
        if count > MOST_MEMBERS or total > MOST_BYTES:
            raise Mistake(f"{source} is refused: it holds more than {MOST_MEMBERS} members or {MOST_BYTES} bytes")
        if wanted(name):
            if link or size > LARGEST_IMAGE:
                what = "is a link" if link else f"unpacks to {size} bytes, more than {LARGEST_IMAGE}"
                raise Mistake(f"{source} is refused: its member {name} {what}")
            yield name, member


def _decode(content: bytes, where: str) -> np.ndarray:
    """Pixels (3, 32, 32) of an encoded image."""
    from PIL import Image

    from secondlook.problems.images import SHAPE

    try:
        with Image.open(io.BytesIO(content)) as image:
            if (image.mode, image.height, image.width) != ("RGB", *SHAPE[1:]):
                raise Mistake(f"{where} is {image.width}x{image.height} {image.mode}, expected {SHAPE[2]}x{SHAPE[1]} RGB")
            return np.asarray(image).transpose(2, 0, 1)
    except (OSError, SyntaxError, ValueError) as error:  # what Pillow raises for a file that is no image, or half of one
        raise Mistake(f"{where} is corrupt or truncated: {error}") from error


def _originals(data_root: Path, out: Path) -> tuple[np.ndarray, str, str]:
    """As `_image_folder`, of torchvision's copy of the originals: the one in `data_root`, or one that it puts into `out`."""
    from secondlook.problems.images import CLASSES, COUNT

    try:
        from torchvision.datasets import CIFAR10
    except ImportError as error:
        raise Mistake(f"no CIFAR-10 in {data_root}, and to download it takes torchvision: install the extra 'data'") from error

    folder = data_root if (data_root / CIFAR10.base_folder).is_dir() else out
    try:
        sets = {split: CIFAR10(folder, train=split == "train", download=folder == out) for split in COUNT}
    except (*DAMAGE, RuntimeError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        if folder == data_root:
            raise Mistake(f"{folder / CIFAR10.base_folder} is corrupt or truncated: remove it, or put it right") from error
        raise Mistake(f"no CIFAR-10 in {data_root} (cifar10*), and the download into {folder} failed: {reason}") from error
    parts = []
    for split, images in sets.items():
        labels = np.array(images.targets)
        each = [np.flatnonzero(labels == c) for c in range(len(CLASSES))]
        if tuple(images.classes) != CLASSES or {len(e) for e in each} != {COUNT[split] // len(CLASSES)}:
            raise Mistake(f"{folder / CIFAR10.base_folder} has other classes or another number of {split} images than CIFAR-10")
        parts.append(images.data[np.stack(each, 1).ravel()].transpose(0, 3, 1, 2))  # from (N, 32, 32, 3)
    return np.concatenate(parts), ORIGINAL, CIFAR10.base_folder
