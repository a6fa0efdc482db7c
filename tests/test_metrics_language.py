"""Language figures by hand, and gzip's against the program's own format."""

import gzip
import math

import numpy as np
import pytest

from hf_tasks.metrics.language import compute_language, gzip_bits_per_byte


def test_figures_by_hand():
    # Four tokens at probability 1/2 and four at 1/8: 4 + 12 bits, over 10 bytes of text.
    nats = np.array([4 * math.log(2), 4 * math.log(8)])

    found = compute_language(nats, np.array([4, 4]), text_bytes=10)

    assert found["bits_per_byte"] == pytest.approx(1.6)
    assert found["loss"] == pytest.approx(2 * math.log(2))
    assert found["perplexity"] == pytest.approx(4.0)


def test_masked_tokens_give_no_bits_per_byte():
    found = compute_language(np.array([1.0]), np.array([2]), text_bytes=None)

    assert set(found) == {"loss", "perplexity"}


def test_a_diverged_model_is_told():
    with pytest.raises(ValueError, match="not finite"):
        compute_language(np.array([np.inf]), np.array([2]), text_bytes=2)


def test_no_predicted_token_is_told():
    with pytest.raises(ValueError, match="none was predicted"):
        compute_language(np.array([0.0]), np.array([0]), text_bytes=2)


def test_gzip_figure_is_that_of_pythons_gzip():
    documents = ["one line of text", "and another, ünicode", "one line of text"] * 50
    text = "".join(f"{document}\n" for document in documents).encode()

    found = gzip_bits_per_byte(documents)

    assert found == pytest.approx(8 * len(gzip.compress(text, 9)) / len(text), rel=1e-3)
