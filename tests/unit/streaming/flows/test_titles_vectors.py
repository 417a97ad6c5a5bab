"""Launches that bring a vector of their own."""

import numpy as np
from bytewax.testing import TestingSource, run_main

from features.text_encoders import load_encoder
from streaming.records import CatalogTitle, decode_catalog_title
from streaming.state.title_embedder import VectorSpace
from tests.support.titles import TOY, TitlesRun, launch


def test_launch_brings_a_vector_of_its_own() -> None:
    encode = load_encoder()
    space, own = VectorSpace("images", 2), {"vector": [3, 4], "space": "images"}
    run = TitlesRun(encode)
    launches = [launch("1", 0, **TOY, **own), launch("2", 1, **own), launch("3", 2, vector=[1], space="images")]
    again = [launch("1", 3, **TOY, **own), launch("2", 4, vector=[4, 3], space="images")]
    run_main(run.flow(TestingSource([launches, again]), vectors=space))
    first, second, changed = run.written()
    assert {title.encoder for title in run.written()} == {"wordllama + images"}
    assert (first.title, second.title, changed.title) == ("1", "2", "2")
    assert (first.width, second.width) == (258, 258)
    np.testing.assert_allclose(np.frombuffer(first.semantic, "<f4")[256:], [0.6 * 2**-0.5, 0.8 * 2**-0.5], rtol=1e-6)
    np.testing.assert_allclose(np.frombuffer(second.semantic, "<f4")[256:], [0.6, 0.8], rtol=1e-6)
    np.testing.assert_allclose(np.frombuffer(changed.semantic, "<f4")[256:], [0.8, 0.6], rtol=1e-6)
    assert run.reasons() == ["out of range: the vector is of the space 'images' with 1 numbers, not 'images' with 2"]
    stored = decode_catalog_title(run.titles.all()[1].value)
    assert isinstance(stored, CatalogTitle)
    assert (stored.space, stored.vector) == ("images", np.array([0.6, 0.8], "<f4").tobytes())
    assert b"vector" not in run.activity.all()[0].value
