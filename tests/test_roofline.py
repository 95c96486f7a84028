"""The roofline against PruMerge's Table 2, and what it says of a request."""

import re
from dataclasses import replace

import pytest
from make_trace import make_trace

from libra import roofline
from libra.architecture import ARCHITECTURES
from libra.cost import at_depth
from libra.layer_cost import Operation, layer_operations
from libra.report import readout
from libra.roofline import DEVICES, Device, Estimate, verdict
from libra.workload import Workload

# Its rows: bits -> model -> FLOPs (T), prefill (ms), memory (GB), stored activations (GB), without
# PruMerge and with it.
TABLE_2 = {
    16: {
        "llava-1.5-7b": ((9.3, 88.6, 23.3, 4.60), (0.91, 15.3, 13.7, 0.28)),
        "llava-1.5-13b": ((18.2, 170.5, 41.6, 7.30), (1.80, 29.5, 26.6, 0.44)),
    },
    4: {
        "llava-1.5-7b": ((2.3, 151.6, 5.9, 1.20), (0.28, 14.9, 3.5, 0.07)),
        "llava-1.5-13b": ((4.6, 294.9, 10.5, 1.80), (0.45, 29.0, 6.8, 0.11)),
    },
}
ROWS = [
    (bits, model, merged, TABLE_2[bits][model][merged])
    for bits in TABLE_2
    for model in TABLE_2[bits]
    for merged in (0, 1)
]


def table_2_row(bits, model, n):
    """As the table counts: Vicuna alone, eager attention, and `n` tokens in all.

    Its memory is the traffic. Its stored activations leave out keys and values, which go to the
    cache, and the gated product. With INT4 the products run at the V100's INT8 rate, and the FLOPs
    are scaled by the bits.
    """
    decoder = ARCHITECTURES[model].decoder
    device = DEVICES["V100"] if bits == 16 else replace(DEVICES["V100"], flops=62e12)
    layer = layer_operations(decoder, n, 0, bits / 8, fused=False)
    kept = [o for o in layer if o.name not in ("key", "value", "activation")]
    sums = (
        sum(o.flops for o in layer) * bits / 16 / 1e12,
        roofline.seconds(layer, device) * 1e3,
        sum(o.bytes for o in layer) / 1e9,
        sum(o.written for o in kept) / 1e9,
    )
    return [decoder.n_layers * x for x in sums]


@pytest.mark.parametrize(("bits", "model", "merged", "printed"), ROWS)
def test_prumerges_table_2_at_the_lengths_that_its_flops_imply(bits, model, merged, printed):
    ours = table_2_row(bits, model, (700, 70)[merged])
    for column, (mine, theirs) in enumerate(zip(ours, printed, strict=True)):
        if (bits, model, merged, column) == (4, "llava-1.5-7b", 1, 0):
            # A slip of the table: a quarter of its own 0.91 is 0.23, not 0.28.
            assert theirs == 0.28 and mine == pytest.approx(0.91 / 4, rel=0.01)
        else:
            assert mine == pytest.approx(theirs, rel=0.1)


@pytest.mark.parametrize(("bits", "model", "merged", "printed"), ROWS)
def test_prumerges_table_2_at_the_lengths_that_it_states(bits, model, merged, printed):
    """576 or 40 visual tokens and 40 of text: what cannot be reproduced within 10 %.

    At 616 tokens FLOPs and times are 11 to 13 % low and stored activations 19 to 23 %; at 80 tokens
    FLOPs are 13 to 14 % high, and so are times with INT4, where weights are not the limit. Memory,
    the other times and the other activations agree.
    """
    ours = table_2_row(bits, model, (616, 80)[merged])
    flops, time, memory, stored = (a / b - 1 for a, b in zip(ours, printed, strict=True))
    assert abs(memory) < 0.04
    if not merged:
        assert -0.14 < flops < -0.11 and -0.13 < time < -0.11 and -0.23 < stored < -0.19
    else:
        assert abs(stored) < 0.1
        assert abs(time) < 0.02 if bits == 16 else 0.13 < time < 0.14
        slip = (bits, model) == (4, "llava-1.5-7b")
        assert -0.08 < flops < -0.07 if slip else 0.13 < flops < 0.15


DEVICE = Device("test", flops=100.0, bandwidth=10.0)


def test_the_slower_of_arithmetic_and_memory_counts():
    work = [Operation("a", 1000, 10, 5, 5), Operation("b", 10, 20, 15, 15)]
    assert roofline.seconds(work, DEVICE) == 1000 / 100 + 50 / 10
    assert DEVICE.ridge == 10


def workload(counts, n=576, **options):
    return Workload(ARCHITECTURES["llava-1.5-7b"], n, counts, 40, **options)


def test_an_estimate_has_every_part():
    work = workload([576] * 32)
    estimate = Estimate.of(work, DEVICES["H100"])
    assert estimate.prefill == roofline.seconds(work.prefill(), DEVICES["H100"])
    # One token reads all weights of the decoder but the embedding, and the cache.
    layers = 32 * (4 * 4096**2 + 3 * 4096 * 11008)
    read = 2 * (layers + 32064 * 4096) + sum(work.kv_bytes())
    assert estimate.decode == pytest.approx(read / 3350e9, rel=0.01)
    assert 0 < estimate.connector < estimate.encoder < estimate.prefill


def test_the_verdict_names_what_is_saved_and_what_is_not():
    vanilla, device = workload([576] * 32), DEVICES["A100"]
    assert verdict(vanilla, vanilla, device) == "By the roofline of A100 this saves nothing."
    late = verdict(workload([576] * 28 + [1] * 4), vanilla, device)
    assert late == (
        "By the roofline of A100 this saves 9.5 % of the prefill and 12 % of the KV cache; "
        "decoding, bound by the weights, is no faster."
    )
    early = verdict(workload([58] * 32), vanilla, device)
    assert "of the prefill" in early and "word" in early and "encoder" not in early
    encoder = verdict(workload([288] * 32, patches=[576] * 8 + [288] * 16), vanilla, device)
    assert "of the encoder" in encoder
    alone = replace(workload([1] * 32), text=0)
    assert "99.8 % of the KV cache" in verdict(alone, replace(vanilla, text=0), device)


def test_the_verdict_names_what_is_dearer():
    """Methods inside an encoder take the place of the pooling of video frames."""
    vanilla, device = workload([576] * 32), DEVICES["A100"]
    dear = verdict(workload([1152] * 32, patches=[576] * 8 + [500] * 16), vanilla, device)
    assert re.fullmatch(
        r"By the roofline of A100 this saves [\d.]+ % of the encoder, but takes \d+ % more for "
        r"the prefill, [\d.]+ % more for each further word and 9\d % more for the KV cache\.",
        dear,
    ), dear
    assert verdict(workload([1152] * 32), vanilla, device).startswith(
        "By the roofline of A100 this saves nothing, but takes "
    )


def test_a_staircase_moves_to_another_depth_and_length():
    assert at_depth([16, 16, 16, 8, 8], 576, 8) == [576] * 4 + [288] * 4
    assert at_depth([16, 4, 4], 100, 3) == [25] * 3  # compressed before the decoder
    assert at_depth([16, 16, 16, 8, 4], 8, 2) == [8, 4]
    assert at_depth([9, 9, 1], 2, 4) == [2, 2, 1, 1]


def test_this_machine_can_be_measured(monkeypatch):
    ticks = iter(range(1000))
    monkeypatch.setattr(roofline, "now", lambda device: next(ticks))
    device = roofline.measure("cpu")
    assert device == Device("this machine", 2 * 1024**3, 2 * 2**24 * 4, 4)  # one second each


def test_the_readout_of_an_answer_says_where_it_saves():
    tiny = ARCHITECTURES["tiny-llava"]
    known = make_trace("fastv", n_layers=8)
    saving = readout(known, tiny).splitlines()[-1]
    assert saving.startswith("saving   counting all tokens, by the roofline of A100 this saves")
    assert "KV cache" in saving
    plain = readout(make_trace("vanilla"), tiny).splitlines()[-1]
    assert plain == "saving   counting all tokens, by the roofline of A100 this saves nothing."
    assert "saving" not in readout(make_trace("fastv"))
