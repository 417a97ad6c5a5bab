"""Text encoders: they embed a title's texts, so that a title can be recommended before it has any event.

The default encoder, wordllama, is a table of token vectors; a text's vector is their mean. It embeds some ten thousand
texts per second on one core, from files inside its wheel. The mean is computed here, one text at a time, for three
reasons. The package pads all texts of a batch to the longest: one long text among 64 would take a gigabyte. Importing
the package reconfigures logging. And a text's vector must not depend on the other texts of its batch, bit for bit,
otherwise reprocessing the topic would give different vectors.

Shapes: n texts, d dimensions; V tokens, D dimensions of the table.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from features.limits import MAX_TEXT_WIDTH

Vectors = NDArray[np.float32]  # [n, d], rows of length one; zero rows for texts without a known token
Encoder = Callable[[Sequence[str]], Vectors]

DEFAULT_ENCODER: Final = "wordllama"
MAX_TEXT_BYTES: Final = 8_192  # of a title's text; the rest is not embedded, which bounds the work of one launch


class EncoderError(Exception):
    """The text encoder is not available. The message names the remedy."""


@dataclass(frozen=True)
class TextEncoder:
    """A named encoder. Vectors of encoders with different names cannot be compared.

    Raises EncoderError if its vectors are too wide.
    """

    name: str
    width: int  # d
    encode: Encoder

    def __post_init__(self) -> None:
        if self.width > MAX_TEXT_WIDTH:
            raise EncoderError(
                f"The text encoder {self.name} gives vectors of {self.width} numbers, more than {MAX_TEXT_WIDTH}: "
                "choose another one, or use wordllama."
            )

    def __call__(self, texts: Sequence[str]) -> Vectors:
        """The vectors of the texts."""
        return self.encode(texts)


def load_encoder(name: str = DEFAULT_ENCODER) -> TextEncoder:
    """Load an encoder: `wordllama` (256 dimensions), or a sentence-transformers model by name or path.

    Raises EncoderError if its package or its files are missing, or if its vectors are too wide.
    """
    return _wordllama() if name == DEFAULT_ENCODER else _sentence_transformers(name)


def launch_text(
    name: str = "", genres: Sequence[str] = (), overview: str = "", extra: Mapping[str, str] | None = None
) -> str:
    """The text of a title that is embedded, at most MAX_TEXT_BYTES bytes; empty without any text.

    The `extra` texts are sorted by name, so the producer's order does not matter.
    """
    parts = [name, ", ".join(genres), overview, *(text for _, text in sorted((extra or {}).items()))]
    text = ". ".join(part.strip() for part in parts if part.strip())
    return text.encode()[:MAX_TEXT_BYTES].decode(errors="ignore")


def _wordllama() -> TextEncoder:
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

    return TextEncoder(DEFAULT_ENCODER, table_VD.shape[1], encode)


def _sentence_transformers(name: str) -> TextEncoder:
    try:
        from sentence_transformers import SentenceTransformer  # type: ignore[import-not-found, unused-ignore]
    except ImportError as error:
        raise EncoderError(
            f"The text encoder {name} needs sentence-transformers ({error}): pip install 'premiere[text]', or use"
            " wordllama."
        ) from error
    try:
        model: Any = SentenceTransformer(name, device="cpu")
    except Exception as error:  # the type depends on the cause: disk, network, a damaged file
        raise EncoderError(
            f"The text encoder {name} cannot be loaded ({error}): name a folder that contains one, or use wordllama."
        ) from error

    width = getattr(model, "get_embedding_dimension", model.get_sentence_embedding_dimension)()  # renamed in 5.x

    def encode(texts: Sequence[str]) -> Vectors:
        vectors = np.asarray(model.encode(list(texts), convert_to_numpy=True, show_progress_bar=False), np.float32)
        vectors = vectors.reshape(len(texts), width).copy()
        vectors[[not text.strip() for text in texts]] = 0  # the model has a vector for an empty text, too
        return _unit(vectors)

    return TextEncoder(name, width, encode)


def _unit(vectors: Vectors) -> Vectors:
    """Scale rows to length one; rows of zero or infinite length become zero."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    valid = np.isfinite(norms) & (norms > 0)
    return np.where(valid, vectors / np.where(valid, norms, 1), 0).astype(np.float32)
