"""Texts as vectors: what a title is, before anybody has seen it.

The default, wordllama, is a table of token vectors whose mean is the text's: some ten thousand texts a second on one
core, from files inside its wheel. The mean is taken here, a text at a time: the package's own batches pad each text to
the longest (one long text among sixty-four would take a gigabyte), and importing it reconfigures logging. So a text's
vector does not depend on its neighbours either, bit for bit, which a replay needs.

Shapes: n texts, d dimensions.
"""

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]  # [n, d], rows of length one; all zero where there is no known text
Encoder = Callable[[Sequence[str]], Vectors]

LONGEST: Final = 8_192  # characters of a title's text that are embedded: bounds the work of one launch


class EncoderError(Exception):
    """The text encoder that was asked for is not there; the message says what to do."""


def load_encoder(name: str = "wordllama") -> Encoder:
    """The encoder of that name: `wordllama` (256 dimensions), else a sentence-transformers model by name or path.

    Raises EncoderError where its package or files are missing.
    """
    return _wordllama() if name == "wordllama" else _sentence_transformers(name)


def launch_text(
    name: str = "", genres: Sequence[str] = (), overview: str = "", extra: Mapping[str, str] | None = None
) -> str:
    """The one text of a title that is embedded, at most LONGEST characters; empty where nothing is known of it.

    The other texts follow in the order of their names, whatever order the producer wrote them in.
    """
    parts = [name, ", ".join(genres), overview, *(text for _, text in sorted((extra or {}).items()))]
    return ". ".join(part.strip() for part in parts if part.strip())[:LONGEST]


def _wordllama() -> Encoder:
    from safetensors.numpy import load_file
    from tokenizers import Tokenizer

    spec = find_spec("wordllama")
    if spec is None or spec.origin is None:
        raise EncoderError("The text encoder needs the package wordllama: pip install wordllama.")
    root = Path(spec.origin).parent
    try:
        weights = load_file(root / "weights" / "l2_supercat_256.safetensors")
        tokenizer = Tokenizer.from_file(str(root / "tokenizers" / "l2_supercat_tokenizer_config.json"))
    except Exception as error:  # tokenizers raises a bare Exception
        raise EncoderError(
            "The installed wordllama has no weights inside: pip install --force-reinstall wordllama."
        ) from error
    table_VD = np.ascontiguousarray(weights["embedding.weight"], np.float32)
    tokenizer.no_padding()
    tokenizer.no_truncation()

    def encode(texts: Sequence[str]) -> Vectors:
        vectors = np.zeros((len(texts), table_VD.shape[1]), np.float32)
        for row, tokens in zip(vectors, tokenizer.encode_batch(list(texts), add_special_tokens=False), strict=True):
            if tokens.ids:
                row[:] = table_VD[np.minimum(tokens.ids, len(table_VD) - 1)].mean(axis=0)
        return _unit(vectors)

    return encode


def _sentence_transformers(name: str) -> Encoder:
    try:
        from sentence_transformers import SentenceTransformer  # type: ignore[import-not-found, unused-ignore]
    except ImportError as error:
        raise EncoderError(
            f"The text encoder {name} needs sentence-transformers ({error}): pip install sentence-transformers,"
            " or use wordllama."
        ) from error
    try:
        model: Any = SentenceTransformer(name, device="cpu")
    except Exception as error:  # what it raises depends on where it looks: disk, network, a damaged file
        raise EncoderError(
            f"The text encoder {name} cannot be loaded ({error}): give a folder that holds one, or use wordllama."
        ) from error

    def encode(texts: Sequence[str]) -> Vectors:
        vectors = np.asarray(model.encode(list(texts), convert_to_numpy=True, show_progress_bar=False), np.float32)
        vectors = vectors.reshape(len(texts), model.get_sentence_embedding_dimension()).copy()
        vectors[[not text.strip() for text in texts]] = 0  # it has a vector for nothing, too
        return _unit(vectors)

    return encode


def _unit(vectors: Vectors) -> Vectors:
    """Rows scaled to length one; rows without a length become zero."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    known = np.isfinite(norms) & (norms > 0)
    return np.where(known, vectors / np.where(known, norms, 1), 0).astype(np.float32)
