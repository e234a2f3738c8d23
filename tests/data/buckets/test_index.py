"""Tests that an index in a bucket is built here, uploaded when complete, and fetched."""

import numpy as np
import pytest

from data.files import to_path
from data.retrieval import folder


def test_an_index_is_uploaded_and_fetched_by_another_machine(shared, machine):
    place = to_path(f"{shared}/index")
    machine("a")
    here = folder.here(place)
    with folder.building(here, {"kind": "bm25"}) as missing:
        assert missing
        folder.write_array(here / "vectors-00000.npy", np.arange(3))
        folder.finish(here, {"kind": "bm25"}, {"kind": "bm25"})
    machine("b")
    there = folder.here(place)
    assert there != here and folder.read(there).array("vectors-00000.npy").tolist() == [0, 1, 2]
    machine("c")
    with pytest.raises(FileNotFoundError, match="holds no index"):
        folder.read(folder.here(to_path(f"{shared}/other")))
