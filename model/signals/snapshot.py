"""What the queries of a micro-batch, or of a served version, read of the catalog, and the buffers that they share.

V titles · M a subset of titles · E width of a text embedding
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from model.new_titles import NewTitles, find_new_titles
from model.signals.fill import Scratch, new_scratch
from model.signals.inputs import TitleSignals, title_signals
from model.state.stream_state import StreamState


class CatalogSnapshot(NamedTuple):
    """The data that the queries of one batch read; the catalog is as of the batch's start."""

    stream_state: StreamState
    titles: TitleSignals
    scratch: Scratch
    count_V: NDArray[np.float32]  # events so far, a copy
    new_titles: NewTitles
    candidates: int  # launched and not withdrawn titles

    def fits(self, titles: int, users: int) -> bool:
        """Whether the buffers have these sizes."""
        return (len(self.scratch.pool.slot_V), len(self.scratch.similarity_U)) == (titles, users)

    def centered_text(self, row_M: NDArray[np.integer]) -> NDArray[np.float32]:
        """Texts less the mean text, as unit vectors; zero without text: [M, E]."""
        catalog = self.stream_state.catalog
        return catalog.text_center.centered(catalog.semantic_VE, row_M)


def take_snapshot(stream_state: StreamState, earlier: CatalogSnapshot | None = None) -> CatalogSnapshot:
    """Read the catalog as of now. The buffers of an earlier snapshot are used again; it must not be used any more."""
    catalog, titles = stream_state.catalog, title_signals(stream_state)
    users = len(titles.interactions.user_count_U)
    if earlier is not None and earlier.fits(catalog.capacity, users):
        scratch = earlier.scratch
    else:
        scratch = new_scratch(catalog.capacity, users)
    return CatalogSnapshot(
        stream_state,
        titles,
        scratch,
        catalog.count_V[: len(catalog)].copy(),
        find_new_titles(catalog, None if earlier is None else earlier.new_titles),
        int(np.count_nonzero(titles.candidate_V)),
    )
