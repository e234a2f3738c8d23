"""The checkout as one archive in the shared folder, from which machines install it."""

import gzip
import hashlib
import io
import subprocess
import tarfile
from pathlib import Path

from data.files import to_path
from launch.checkout import ROOT
from launch.errors import writing

MOST_BYTES = 50 << 20  # of the archive; a larger checkout holds data that git should ignore


def files(root: Path = ROOT) -> list[str]:
    """The files of the checkout that git tracks or does not ignore. ValueError outside git."""
    git = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(git, capture_output=True, check=True).stdout.decode()
    except (OSError, subprocess.CalledProcessError) as error:
        raise ValueError(
            f"{root} is no git checkout ({error}), so what machines should run is unknown; clone "
            "the repository and run isoflop from there"
        ) from None
    return sorted(name for name in set(listed.split("\0")) - {""} if (root / name).is_file())


def archive(root: Path = ROOT) -> bytes:
    """The files as a tar.gz. Equal files give equal bytes."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        for name in files(root):
            content = (root / name).read_bytes()
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            entry.mode = 0o755 if (root / name).stat().st_mode & 0o100 else 0o644
            tar.addfile(entry, io.BytesIO(content))
    packed = gzip.compress(raw.getvalue(), mtime=0)
    if len(packed) > MOST_BYTES:
        raise ValueError(
            f"the checkout {root} is {len(packed) >> 20} MiB packed, above {MOST_BYTES >> 20}; "
            "name its data in .gitignore"
        )
    return packed


def place(workdir: str, packed: bytes) -> str:
    """Where in the shared folder an archive lies: its name is its hash."""
    digest = hashlib.sha256(packed).hexdigest()[:16]
    return f"{workdir.rstrip('/')}/machines/code-{digest}.tar.gz"


def upload(target: str, packed: bytes) -> None:
    """Writes the archive, unless it is there already. BadInput if the folder cannot be written."""
    file = to_path(target)
    with writing("workdir", target.rpartition("/machines/")[0]):
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(packed)


def inside(path: str, flag: str, root: Path = ROOT) -> str:
    """A file that a machine reads from the checkout, as named from its root. ValueError, naming
    the flag, if it is elsewhere."""
    name, separator, arg = path.partition(".py:")
    file = Path(name + ".py" if separator else name).expanduser()
    found = (file if file.is_file() else root / file).resolve()
    if not found.is_file():
        raise ValueError(f"{flag}={path} does not exist; name a file of the checkout {root}")
    if not found.is_relative_to(root):
        raise ValueError(
            f"{flag}={path} is outside the checkout {root}, which is what machines get; copy it "
            "into configs/"
        )
    return found.relative_to(root).as_posix() + (f":{arg}" if arg else "")
