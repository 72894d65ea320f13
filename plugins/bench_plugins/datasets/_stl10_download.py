"""Fetches STL-10's official archive. The folder appears only once every file in it is complete."""

import contextlib
import os
import sys
import tarfile
import tempfile
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from torchvision.datasets import STL10
from torchvision.datasets.utils import check_integrity, download_url

from bench.errors import DataError

__all__ = ["download_stl10", "remedy"]

CONNECT_TIMEOUT_S = 5


def remedy(root: Path) -> str:
    """What a person does without the network."""
    return (
        f"download {STL10.url} (md5 {STL10.tgz_md5}) by hand and leave it in {root.resolve()}, or unpack it there "
        f"into {STL10.base_folder}/; or use your own images: --set dataset.name=image_folder --set dataset.root=DIR"
    )


def download_stl10(root: Path, names: Sequence[str]) -> None:
    """Put the named files into root/stl10_binary, from an archive that lies in root or else from the network.

    torchvision's address and md5. Progress goes to stderr. Raises DataError with the remedy where there is no network
    (at once), the archive is damaged or the disk is full.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root, prefix=".stl10-") as scratch:
            archive = root / STL10.filename
            if not archive.is_file():
                archive = _fetch(Path(scratch))
            elif not check_integrity(archive, STL10.tgz_md5):
                message = f"{archive} is damaged or incomplete: its md5 is not {STL10.tgz_md5}"
                raise DataError(message, hint=f"remove it and start again, or {remedy(root)}")
            unpacked = _unpack(archive, Path(scratch), names)
            (root / STL10.base_folder).mkdir(exist_ok=True)
            for file in unpacked:
                os.replace(file, root / STL10.base_folder / file.name)  # noqa: PTH105 -- one call that is atomic everywhere
    except (OSError, RuntimeError, EOFError, tarfile.TarError) as cause:
        raise DataError(f"STL-10 cannot be fetched into {root}: {cause}", hint=remedy(root)) from cause


def _fetch(folder: Path) -> Path:
    # torchvision waits for minutes on a network that swallows packets.
    request = urllib.request.Request(STL10.url, method="HEAD")  # noqa: S310 -- torchvision's address
    urllib.request.urlopen(request, timeout=CONNECT_TIMEOUT_S).close()  # noqa: S310 -- the same
    with contextlib.redirect_stdout(sys.stderr):
        download_url(STL10.url, folder, filename=STL10.filename, md5=STL10.tgz_md5)
    return folder / str(STL10.filename)


def _unpack(archive: Path, folder: Path, names: Sequence[str]) -> list[Path]:
    """Extract only these files: the unlabelled images are 2.8 GB."""
    wanted = {f"{STL10.base_folder}/{name}" for name in names}
    with tarfile.open(archive, mode="r|gz") as opened:
        for member in opened:
            if member.name in wanted:
                opened.extract(member, folder, filter="data")
                wanted.remove(member.name)
            if not wanted:
                break
    return [folder / STL10.base_folder / name for name in names]
