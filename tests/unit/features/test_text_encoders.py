"""Texts as vectors: what they are close to, and that they depend on nothing else."""

import numpy as np
import pytest

from features.text_encoders import LONGEST, Encoder, EncoderError, launch_text, load_encoder

TOY = "Toy Story. Animation, Children, Comedy. A cowboy doll is jealous when a boy gets a new toy for his birthday."
NEMO = "Finding Nemo. Animation, Children, Comedy. A clown fish looks for his little son, who was taken by a diver."
ALIEN = "Alien. Horror, Sci-Fi. The crew of a commercial spacecraft is hunted by a deadly life form."


@pytest.fixture(scope="module")
def encode() -> Encoder:
    return load_encoder()


def test_vectors_have_length_one_and_256_dimensions(encode: Encoder) -> None:
    vectors = encode([TOY, ALIEN, "🧸🚀", "x" * LONGEST])
    assert vectors.shape == (4, 256)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_an_empty_text_has_the_zero_vector(encode: Encoder) -> None:
    assert not encode([""]).any()
    assert encode([]).shape == (0, 256)


def test_a_vector_does_not_depend_on_its_neighbours_bit_for_bit(encode: Encoder) -> None:
    texts = [TOY, "", "a", ALIEN, "🧸", "word " * 900]
    alone = np.concatenate([encode([text]) for text in texts])
    assert encode(texts).tobytes() == alone.tobytes()


def test_titles_of_one_kind_lie_closer_than_titles_of_two(encode: Encoder) -> None:
    toy, nemo, alien = encode([TOY, NEMO, ALIEN])
    assert toy @ nemo > toy @ alien + 0.05


def test_it_is_the_mean_that_wordllama_itself_computes(encode: Encoder) -> None:
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


def test_a_model_that_is_not_there_is_an_error_with_the_remedy() -> None:
    with pytest.raises(EncoderError, match="or use wordllama"):
        load_encoder("/no/such/model")


def test_a_launch_text_says_all_that_is_known_in_a_fixed_order() -> None:
    text = launch_text("Alien", ["Horror", "Sci-Fi"], " In space. ", {"tags": "cat", "cast": "Sigourney Weaver"})
    assert text == "Alien. Horror, Sci-Fi. In space.. Sigourney Weaver. cat"
    assert launch_text("Alien", extra={"b": "2", "a": "1"}) == launch_text("Alien", extra={"a": "1", "b": "2"})


def test_a_launch_without_text_has_no_text_and_a_long_one_is_cut() -> None:
    assert launch_text() == launch_text(" ", [], "", {"tags": " "}) == ""
    assert len(launch_text("x", overview="y" * 3 * LONGEST)) == LONGEST
