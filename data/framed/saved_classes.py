"""What a run keeps of its labelled data: the names of the classes, and how it frames texts."""

from pathlib import Path
from typing import NamedTuple

from data.atomic import write_atomic
from data.framed.marks import FRAMES
from data.local import sealed, unsealed

FILE = "labels.json"


class Classes(NamedTuple):
    """The names of the classes in order, whether each word has one, and a key of FRAMES."""

    labels: tuple[str, ...]
    each_word: bool
    frame: str

    def save(self, workdir: Path) -> None:
        """Writes labels.json into a run's folder."""
        write_atomic(workdir / FILE, sealed(self._asdict()))


def read(workdir: Path) -> Classes:
    """What `save` wrote. FileNotFoundError or ValueError, in one line, where there is nothing, or
    it is damaged."""
    try:
        about = unsealed((workdir / FILE).read_bytes())
        if about["frame"] not in FRAMES:
            raise ValueError(f"the frame {about['frame']!r} is unknown")
        labels = tuple(map(str, about["labels"]))
        return Classes(labels, bool(about["each_word"]), about["frame"])
    except FileNotFoundError:
        raise FileNotFoundError(f"{workdir} holds no {FILE}; it is no classifier") from None
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{workdir / FILE} is damaged ({error}); train the run again") from None
