"""Text encoders: shapes, similarity, and independence of the other texts in a batch."""

import numpy as np
import pytest

from features.limits import MAX_TEXT_WIDTH
from features.text_encoders import (
    MAX_TEXT_BYTES,
    Encoder,
    EncoderError,
    TextEncoder,
    launch_text,
    load_encoder,
)

TOY = "Toy Story. Animation, Children, Comedy. A cowboy doll is jealous when a boy gets a new toy for his birthday."
NEMO = "Finding Nemo. Animation, Children, Comedy. A clown fish looks for his little son, who was taken by a diver."
ALIEN = "Alien. Horror, Sci-Fi. The crew of a commercial spacecraft is hunted by a deadly life form."


@pytest.fixture(scope="module")
def encode() -> Encoder:
    return load_encoder()


def test_vectors_have_unit_length_and_256_dimensions(encode: Encoder) -> None:
    vectors = encode([TOY, ALIEN, "🧸🚀", "x" * MAX_TEXT_BYTES])
    assert vectors.shape == (4, 256)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_empty_text_has_the_zero_vector(encode: Encoder) -> None:
    assert not encode([""]).any()
    assert encode([]).shape == (0, 256)


def test_vector_is_bit_identical_in_every_batch(encode: Encoder) -> None:
    texts = [TOY, "", "a", ALIEN, "🧸", "word " * 900]
    alone = np.concatenate([encode([text]) for text in texts])
    assert encode(texts).tobytes() == alone.tobytes()


@pytest.mark.parametrize(
    ("title", "same_genre", "other_genre"),
    [
        (TOY, NEMO, ALIEN),
        (
            "Saving Private Ryan. War, Drama. Soldiers cross the front to bring a comrade home after a landing.",
            "Dunkirk. War, Drama. Surrounded troops wait on the beach for boats while enemy planes attack.",
            "Notting Hill. Romance, Comedy. A bookseller falls in love with a famous actress.",
        ),
        (
            "Unforgiven. Western. A retired gunslinger takes one last job to hunt two cowboys.",
            "Tombstone. Western. A marshal and his brothers fight outlaws in a frontier town.",
            "The Matrix. Sci-Fi, Action. A hacker learns that the world is a computer simulation run by machines.",
        ),
        (
            "Notting Hill. Romance, Comedy. A bookseller falls in love with a famous actress.",
            "Pretty Woman. Romance, Comedy. A businessman falls in love with the woman he hired for a week.",
            "Jaws. Horror, Thriller. A great white shark attacks swimmers at a beach town.",
        ),
        (
            "The Godfather. Crime, Drama. The head of a mafia family hands his empire to his reluctant son.",
            "Goodfellas. Crime, Drama. A young man rises in the mob and betrays it.",
            "March of the Penguins. Documentary. Penguins walk across the Antarctic ice to breed.",
        ),
    ],
)
def test_titles_of_the_same_genre_are_more_similar(
    encode: Encoder, title: str, same_genre: str, other_genre: str
) -> None:
    a, b, c = encode([title, same_genre, other_genre])
    assert a @ b > max(a @ c, b @ c) + 0.05  # measured: 0.11 to 0.68 above the larger one


def test_vectors_equal_those_of_the_wordllama_package(encode: Encoder) -> None:
    from pathlib import Path

    import wordllama
    from safetensors.numpy import load_file
    from tokenizers import Tokenizer
    from wordllama.inference import WordLlamaInference

    root = Path(wordllama.__file__).parent
    table = load_file(root / "weights" / "l2_supercat_256.safetensors")["embedding.weight"]
    theirs = WordLlamaInference(
        table, Tokenizer.from_file(str(root / "tokenizers" / "l2_supercat_tokenizer_config.json"))
    )
    np.testing.assert_allclose(encode([TOY, "🧸"]), theirs.embed([TOY, "🧸"], norm=True), atol=1e-6)


def test_missing_model_is_an_error_with_the_remedy() -> None:
    with pytest.raises(EncoderError, match="or use wordllama"):
        load_encoder("/no/such/model")


def test_launch_text_joins_all_texts_in_a_fixed_order() -> None:
    text = launch_text("Alien", ["Horror", "Sci-Fi"], " In space. ", {"tags": "cat", "cast": "Sigourney Weaver"})
    assert text == "Alien. Horror, Sci-Fi. In space.. Sigourney Weaver. cat"
    assert launch_text("Alien", extra={"b": "2", "a": "1"}) == launch_text("Alien", extra={"a": "1", "b": "2"})


def test_launch_text_may_be_empty_and_is_truncated() -> None:
    assert launch_text() == launch_text(" ", [], "", {"tags": " "}) == ""
    assert len(launch_text("x", overview="y" * 3 * MAX_TEXT_BYTES)) == MAX_TEXT_BYTES
    assert launch_text("é" * MAX_TEXT_BYTES) == "é" * (MAX_TEXT_BYTES // 2)


def test_encoder_has_a_name_and_a_bounded_width(encode: TextEncoder) -> None:
    assert (encode.name, encode.width) == ("wordllama", 256)
    assert TextEncoder("wide", MAX_TEXT_WIDTH, encode).width == MAX_TEXT_WIDTH
    with pytest.raises(EncoderError, match="wider gives vectors of 4097 numbers"):
        TextEncoder("wider", MAX_TEXT_WIDTH + 1, encode)
