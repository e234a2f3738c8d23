"""Reads and writes safetensors files: eight bytes of length, a JSON header, then the arrays.

Tensors are read in blocks of rows into their destination: a checkpoint is never in memory twice,
and files are not memory-mapped. Format: github.com/huggingface/safetensors.
"""

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import ml_dtypes
import numpy as np

DTYPES = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
BLOCK = 1 << 20  # bytes read at a time
LINES = 16  # rows copied at a time: transposes a matrix two to three times as fast
LARGEST_HEADER = 100_000_000  # bytes, as in the reference implementation


@dataclass(frozen=True)
class Tensor:
    """The location of a tensor: its values begin at byte `start` of `file`."""

    name: str
    file: Path
    dtype: str  # a key of DTYPES, or an unsupported one
    shape: tuple[int, ...]
    start: int

    def read(self, rows: slice, columns: slice, out: np.ndarray) -> None:
        """Copies tensor[rows, columns], or vector[rows], into `out`, of the same shape."""
        width = self.shape[1] if len(self.shape) == 2 else 1
        first, last, _ = rows.indices(self.shape[0])
        row_bytes = width * out.itemsize
        step = max(1, BLOCK // row_bytes)
        block = np.empty((min(step, last - first), width), out.dtype)
        with open(self.file, "rb", buffering=0) as file:
            file.seek(self.start + first * row_bytes)
            for row in range(first, last, step):
                part = block[: min(step, last - row)]
                _fill(file, part, self)
                part = part[:, columns] if len(self.shape) == 2 else part[:, 0]
                target = out[row - first : row - first + len(part)]
                for line in range(0, len(part), LINES):
                    target[line : line + LINES] = part[line : line + LINES]

    def equals(self, other: "Tensor") -> bool:
        """Whether both have the same shape, type and bytes."""
        if (self.shape, self.dtype) != (other.shape, other.dtype):
            return False
        size = DTYPES[self.dtype].itemsize * int(np.prod(self.shape, dtype=np.int64))
        with open(self.file, "rb") as mine, open(other.file, "rb") as theirs:
            mine.seek(self.start)
            theirs.seek(other.start)
            sizes = (min(BLOCK, size - at) for at in range(0, size, BLOCK))
            return all(mine.read(n) == theirs.read(n) for n in sizes)


def _fill(file, array: np.ndarray, tensor: Tensor) -> None:
    """Fills `array` from the file; a single read may return fewer bytes."""
    view = memoryview(array.reshape(-1).view(np.uint8))
    while view:
        count = file.readinto(view)
        if not count:
            raise ValueError(f"{tensor.file} ends within {tensor.name}; fetch it again")
        view = view[count:]


def tensors(directory: Path) -> dict[str, Tensor]:
    """All tensors of a checkpoint by name. Only the headers of its files are read.

    Raises FileNotFoundError or ValueError that names a file which is missing, damaged or of the
    wrong type.
    """
    directory = Path(directory)
    tensors, weight_map, repeated = {}, {}, []
    if (directory / INDEX).is_file() and (directory / SINGLE).is_file():
        listed = _weight_map(directory / INDEX).values()
        if SINGLE not in listed:
            raise ValueError(f"{directory} holds both {SINGLE} and {INDEX}; remove one of them")
    if (directory / INDEX).is_file():
        weight_map = _weight_map(directory / INDEX)
        files = [directory / name for name in sorted(set(weight_map.values()))]
    elif (directory / SINGLE).is_file():
        files = [directory / SINGLE]
    else:
        files = []
    if not files:
        pickles = sorted(p.name for p in directory.glob("*") if p.suffix in (".bin", ".pt", ".pth"))
        if pickles:
            raise ValueError(
                f"{directory} holds a pickle checkpoint, {pickles[0]}, which can run any code "
                "when it is read; get the model as safetensors"
            )
        raise FileNotFoundError(f"{directory} holds neither {SINGLE} nor {INDEX}")
    for file in files:
        if not file.is_file():
            raise FileNotFoundError(f"{file} is missing, which {INDEX} names; fetch it too")
        header = read_header(file)
        repeated += [(name, file) for name in header if name in tensors]
        tensors |= header
    for name, file in weight_map.items():
        if name not in tensors or tensors[name].file.name != file:
            raise ValueError(f"{directory / INDEX} says that {name} is in {file}; it is not there")
    for name, file in repeated:
        raise ValueError(f"{file} repeats {name} from another file; fetch both again")
    return tensors


def _weight_map(index: Path) -> dict[str, str]:
    try:
        weight_map = json.loads(index.read_bytes())["weight_map"]
        weight_map = {str(name): str(file) for name, file in weight_map.items()}
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        raise ValueError(f"{index} is damaged: it has no weight_map; fetch it again") from None
    for file in weight_map.values():
        if Path(file).name != file:
            raise ValueError(f"{index} names {file!r}, which is not a file in the same folder")
    return weight_map


def read_header(path: Path) -> dict[str, Tensor]:
    """The tensors of one file. Raises ValueError if its header or its length is wrong."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, LARGEST_HEADER):
            raise ValueError(f"{path} is truncated, or not a safetensors file; fetch it again")
        try:
            header = json.loads(file.read(length))
            header.pop("__metadata__", None)
            tensors, ends = {}, []
            for name, about in header.items():
                first, last = about["data_offsets"]
                shape = tuple(int(n) for n in about["shape"])
                tensors[name] = Tensor(name, path, about["dtype"], shape, 8 + length + first)
                ends.append(last)
                dtype = DTYPES.get(about["dtype"])
                if dtype and last - first != dtype.itemsize * np.prod(shape, dtype=np.int64):
                    raise ValueError(f"{name} has {last - first} bytes")
        except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
            fault = "nested too deeply" if isinstance(error, RecursionError) else error
            raise ValueError(f"{path} has a damaged header ({fault}); fetch it again") from None
    if size != 8 + length + max(ends, default=0):
        raise ValueError(
            f"{path} has {size} bytes instead of {8 + length + max(ends, default=0)}: "
            "it is truncated; fetch it again"
        )
    return tensors


def metadata(path: Path) -> dict[str, str]:
    """The texts in the header of a file that `read_header` accepts."""
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    found = header.get("__metadata__")
    return found if isinstance(found, dict) else {}


def write(
    path: Path,
    layout: Mapping[str, tuple[np.dtype, tuple[int, ...]]],
    array: Callable[[str], Iterable[np.ndarray]],
    metadata: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Writes one file. `layout` gives each tensor's dtype and shape, `array(name)` its parts, and
    `metadata` more texts of the header.

    The parts of a tensor are consecutive blocks of rows; one part is in memory at a time.
    """
    header, end = {"__metadata__": {"format": "pt", **metadata}}, 0  # transformers needs a format
    for name, (dtype, shape) in layout.items():
        count = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        header[name] = {
            "dtype": NAMES[dtype],
            "shape": list(shape),
            "data_offsets": [end, end + count],
        }
        end += count
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in layout:
            for part in array(name):
                file.write(np.ascontiguousarray(part).reshape(-1).view(np.uint8))
        file.flush()
        os.fsync(file.fileno())
