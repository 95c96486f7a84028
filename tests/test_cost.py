import math
from statistics import mean

import numpy as np
import pytest

from libra.cost import kv_bytes, prefill_flops, token_counts
from libra.errors import InputError

LLAVA_7B = dict(d=4096, m=11008, n_layers=32, lengths=(576,))
LLAVA_13B = dict(d=5120, m=13824, n_layers=40, lengths=(576,))
# The number of tokens varies with the picture, and the paper prints means over a benchmark: no one
# length gives all four of its figures, but lengths around 2266.5 do on average.
LLAVA_NEXT_8B = dict(d=4096, m=14336, d_kv=1024, n_layers=32, lengths=(2266, 2267))
VIDEO_LLAMA_7B = dict(d=3584, m=18944, d_kv=512, n_layers=28, lengths=(3331,))
LATE_7B, LATE_13B = (7, 15, 23), (9, 19, 29)


@pytest.mark.parametrize(
    ("model", "layers", "ratio", "printed"),
    [
        (LLAVA_7B, (), 0, "3.817"),
        (LLAVA_7B, (3,), 1 / 2, "2.128"),
        (LLAVA_7B, LATE_7B, 1 / 2, "1.777"),
        (LLAVA_7B, LATE_7B, 2 / 3, "1.4055"),
        (LLAVA_7B, LATE_7B, 4 / 5, "1.187"),
        (LLAVA_13B, (), 0, "7.444"),
        (LLAVA_13B, (3,), 1 / 2, "4.064"),
        (LLAVA_13B, LATE_13B, 1 / 2, "3.471"),
        (LLAVA_13B, LATE_13B, 2 / 3, "2.744"),
        (LLAVA_NEXT_8B, (), 0, "17.17"),
        (LLAVA_NEXT_8B, (3,), 1 / 2, "9.36"),
        (LLAVA_NEXT_8B, LATE_7B, 1 / 2, "7.86"),
        (LLAVA_NEXT_8B, LATE_7B, 2 / 3, "6.24"),
        (VIDEO_LLAMA_7B, (), 0, "23.963"),
        (VIDEO_LLAMA_7B, (3,), 3 / 4, "8.202"),
    ],
)
def test_the_papers_flops_to_the_printed_digits(model, layers, ratio, printed):
    flops = mean(
        prefill_flops(
            token_counts(n, model["n_layers"], layers, ratio),
            model["d"],
            model["m"],
            model.get("d_kv"),
        )
        for n in model["lengths"]
    )
    decimals = len(printed.split(".")[1])
    assert f"{flops / 1e12:.{decimals}f}" == printed


def test_counts_fall_after_each_layer():
    assert token_counts(576, 5, (1, 3), 2 / 3) == [576, 576, 192, 192, 64]
    assert token_counts(576, 4, (0, 1, 2), 2 / 3) == [576, 192, 64, 21]


def test_at_least_one_token_stays():
    assert token_counts(576, 3, (0,), 1.0) == [576, 1, 1]
    assert token_counts(1, 3, (0, 1), 0.9) == [1, 1, 1]
    assert token_counts(0, 3, (0, 1), 0.9) == [0, 0, 0]


def test_ratio_zero_changes_nothing():
    assert token_counts(7, 3, (0, 1), 0.0) == [7, 7, 7]


@pytest.mark.parametrize("layers", [(-1,), (4,), (2, 2), (3, 1)])
def test_bad_layers(layers):
    with pytest.raises(InputError, match="ayers must"):
        token_counts(576, 4, layers, 0.5)


def test_one_layer_may_stand_alone_and_layers_may_come_as_they_like():
    once = [576, 576, 288, 288]
    assert token_counts(576, 4, 1, 0.5) == token_counts(576, 4, np.int64(1), 0.5) == once
    assert token_counts(576, 4, (layer for layer in (0, 2)), 0.5) == [576, 288, 288, 144]
    assert token_counts(576, 4, np.array([0, 2]), 0.5) == [576, 288, 288, 144]


@pytest.mark.parametrize("layers", [1.0, (1.5,), "1", "1,3", None])
def test_layers_that_are_no_whole_numbers(layers):
    with pytest.raises(InputError, match=r"whole numbers, for example 1, 3, 5"):
        token_counts(576, 4, layers, 0.5)


def test_a_model_without_layers_has_no_counts():
    assert token_counts(576, 0, (), 0.5) == []
    with pytest.raises(InputError, match="ayers must"):
        token_counts(576, 0, 0, 0.5)


@pytest.mark.parametrize("ratio", [-0.1, 1.1, math.nan, "0.5", None, [0.5]])
def test_bad_ratio(ratio):
    with pytest.raises(InputError, match="ratio must"):
        token_counts(576, 4, (1,), ratio)


def test_full_attention_is_grouped_query_attention_with_as_many_heads():
    assert prefill_flops([5, 3], 8, 16) == prefill_flops([5, 3], 8, 16, d_kv=8)
    assert prefill_flops([1], 2, 3) == 4 * 4 + 2 * 2 + 3 * 6


def test_counts_of_an_array_do_not_overflow():
    counts = np.full(32, 576, dtype=np.int32)
    assert prefill_flops(counts, 4096, 11008) == prefill_flops([576] * 32, 4096, 11008)
    assert prefill_flops([576] * 32, 4096, 11008) == 32 * (
        4 * 576 * 4096**2 + 2 * 576**2 * 4096 + 3 * 576 * 4096 * 11008
    )


def test_kv_bytes_per_layer():
    assert kv_bytes([576, 288], d_kv=4096) == [576 * 4096 * 4, 288 * 4096 * 4]
    assert kv_bytes([10], d_kv=8, itemsize=4) == [10 * 8 * 8]
