"""Archives of images that are refused: the ending of each, what writes it, and a pattern for what is said of it."""

import gzip
import io
import tarfile
import zipfile
from functools import partial
from pathlib import Path


def _tar(member: tarfile.TarInfo, data: bytes, path: Path) -> None:
    with tarfile.open(path, "w:gz") as archive:
        archive.addfile(member, io.BytesIO(data))


def _member(name: str, size: int = 0, **more) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    for key, value in ({"size": size} | more).items():
        setattr(member, key, value)
    return member


def _zip(name: str, data: bytes, path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, data)


def _header_alone(member: tarfile.TarInfo, path: Path) -> None:
    path.write_bytes(gzip.compress(member.tobuf()))


REFUSED = "given/cifar10{} is refused: "
CAT = "train/cat/0000.png"
ARCHIVES = {
    "archive with a path out of it (tar)": (
        ".tar.gz", partial(_tar, _member(f"../../{CAT}", 9), bytes(9)), rf"its member ../../{CAT} leads out of it",
    ),
    "archive with an absolute path (zip)": (
        ".zip", partial(_zip, f"/{CAT}", bytes(9)), rf"its member /{CAT} leads out of it",
    ),
    "archive with a link for an image": (
        ".tar.gz", partial(_tar, _member(CAT, type=tarfile.SYMTYPE, linkname="../x"), b""), rf"its member {CAT} is a link",
    ),
    "archive that is a bomb (one image of 1 MiB)": (
        ".zip", partial(_zip, CAT, bytes(1 << 20)), rf"its member {CAT} unpacks to 1048576 bytes, more than 65536",
    ),
    "archive that is a bomb (1 TiB)": (
        ".tar.gz", partial(_header_alone, _member("zeros", 1 << 40)), r"it holds more than 200000 members or 536870912 bytes",
    ),
}  # fmt: skip
