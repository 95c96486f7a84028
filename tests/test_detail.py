"""Full tracing: what it adds, against matrices that the model forms itself and plain loops."""

from itertools import pairwise

import pytest
import torch
from conftest import N_ENCODER_LAYERS, N_LAYERS, N_VISUAL, QUESTION, make_image, make_lvlm

from libra import InputError, generation, recorder
from libra.detail import (
    MAX_PAIRED,
    AttentionMatrix,
    Similarity,
    bins,
    from_log_codes,
    log_codes,
    spread_layers,
)
from libra.recorder import SAMPLES, prompt_queries

LAYERS = (0, 2, 5, 7)  # spread over eight


def ask(lvlm, method="libra", tracing="full", **request):
    request = {"images": [make_image()], "question": QUESTION, "max_new_tokens": 4} | request
    return lvlm.answer(method=method, tracing=tracing, **request)


def pooled_by_loops(matrix, segments):
    """Mean over the visible pairs of every two bins, pair by pair."""
    starts = [*bins(segments).tolist(), sum(segments)]
    pooled = torch.zeros(len(starts) - 1, len(starts) - 1)
    for i in range(len(pooled)):
        for j in range(len(pooled)):
            pairs = [
                matrix[q, k]
                for q in range(starts[i], starts[i + 1])
                for k in range(starts[j], starts[j + 1])
                if k <= q
            ]
            pooled[i, j] = sum(pairs) / max(1, len(pairs))
    return pooled


def causal(n, seed=0):
    """A random causal attention matrix [n, n]."""
    scores = torch.randn(n, n, generator=torch.Generator().manual_seed(seed))
    return scores.masked_fill(torch.ones(n, n).triu(1).bool(), -torch.inf).softmax(-1)


# -- parts ------------------------------------------------------------------------------------


def test_bins_divide_every_segment_evenly():
    assert bins((3, 5, 0, 2)).tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    starts = bins((5, 576, 14, 40)).tolist()
    assert len(starts) == 5 + 48 + 14 + 24
    assert {5, 581, 595} <= set(starts)
    widths = [b - a for a, b in pairwise(starts[5:53])]
    assert set(widths) == {12}
    assert spread_layers(8) == LAYERS and spread_layers(1) == (0,) and spread_layers(2) == (0, 1)


@pytest.mark.parametrize("segments", [(2, 60, 5), (1, 1, 1), (20, 3, 30)])
def test_pooling_is_the_mean_of_what_is_visible(segments):
    matrix, n = causal(sum(segments)), sum(segments)
    made = AttentionMatrix.of_prompt(matrix, torch.arange(n), segments)
    torch.testing.assert_close(made.pooled, pooled_by_loops(matrix, segments))
    torch.testing.assert_close(from_log_codes(made.raw), matrix, rtol=0.035, atol=2.0**-24)


def test_generated_tokens_are_appended():
    whole, segments, n_words = causal(70), (2, 50, 8), 10
    prompt = AttentionMatrix.of_prompt(whole[:60, :60], torch.arange(60), segments)
    rows = [whole[60 + i, : 61 + i] for i in range(n_words)]
    made = prompt.followed_by(rows)
    assert made.segments == (2, 50, 8, 10)
    torch.testing.assert_close(made.pooled, pooled_by_loops(whole, made.segments))
    torch.testing.assert_close(from_log_codes(made.raw), whole, rtol=0.035, atol=2.0**-24)
    assert prompt.followed_by([]).pooled.equal(prompt.pooled)


def test_long_prompts_are_sampled_and_keep_no_raw_matrix():
    segments = (40, 1800, 60)
    queries = prompt_queries(segments)
    assert len(queries) == 40 + 48 * SAMPLES + 60 and queries.unique().equal(queries)
    starts = bins(segments)
    assert set(torch.searchsorted(starts, queries, right=True).tolist()) == {
        *range(1, len(starts) + 1)
    }
    assert prompt_queries((2, MAX_PAIRED - 4, 2)).equal(torch.arange(MAX_PAIRED))
    n = sum(segments)
    rows = torch.full((len(queries), n), 1 / n)
    rows = rows * (torch.arange(n) <= queries[:, None])
    made = AttentionMatrix.of_prompt(rows, queries, segments)
    assert made.raw is None and made.followed_by([torch.full((n + 1,), 0.5)]).raw is None
    visible = torch.ones_like(made.pooled).tril().bool()
    torch.testing.assert_close(made.pooled[visible], torch.full((int(visible.sum()),), 1 / n))
    assert (made.pooled[~visible] == 0).all()


def test_log_codes_keep_shares_of_many_sizes():
    share = torch.logspace(-7, 0, 300)
    torch.testing.assert_close(from_log_codes(log_codes(share)), share, rtol=0.035, atol=0)
    assert log_codes(torch.tensor([0.0, 1e-9, 1.0])).tolist() == [0, 0, 255]
    assert from_log_codes(torch.tensor([0, 255])).tolist() == [0.0, 1.0]


@pytest.mark.parametrize("n", [1, 2, 3, 40])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_similarities_are_cosines_in_256_steps(n, dtype):
    hidden = torch.randn(n, 6, generator=torch.Generator().manual_seed(n)).to(dtype)
    made = Similarity.of(hidden)
    matrix = made.matrix()
    for i in range(n):
        for j in range(n):
            cosine = torch.nn.functional.cosine_similarity(
                hidden[i].double(), hidden[j].double(), dim=0
            )
            error = abs(float(matrix[i, j] - cosine))
            assert error <= (made.high - made.low) / 510 + 1e-6
    assert matrix.equal(matrix.T) and len(made.codes) == n * (n - 1) // 2


# -- a request ----------------------------------------------------------------------------------


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_matrices_and_heads_are_those_of_the_model(attention):
    """Vanilla against the matrices of eager attention over the whole prompt and answer."""
    with make_lvlm(attention) as lvlm, make_lvlm("eager") as reference:
        ids = []
        embed = lvlm.family.inputs

        def spy(*args):
            ids.append(embed(*args))
            return ids[0]

        lvlm.family.inputs = spy
        answer = ask(lvlm, "vanilla")
        detail, words = answer.trace.detail, answer.trace.words
        prompt = ids[0]["inputs_embeds"]
        tokens = [lvlm.family.tokenizer.convert_tokens_to_ids(w.text.strip()) for w in words]
        later = reference.family.model.get_input_embeddings()(torch.tensor([tokens[:-1]]))
        with torch.no_grad():
            whole = reference.family.model(
                inputs_embeds=torch.cat([prompt, later], 1), output_attentions=True
            ).attentions
    n = prompt.shape[1]
    assert tuple(detail.matrices) == LAYERS and len(detail.heads) == N_LAYERS
    for layer, matrix in detail.matrices.items():
        assert sum(matrix.segments) == n + len(tokens) - 1
        assert matrix.segments[1] == N_VISUAL and matrix.segments[3] == len(tokens) - 1
        expected = whole[layer][0].mean(0).float()
        torch.testing.assert_close(from_log_codes(matrix.raw), expected, rtol=0.035, atol=2.0**-23)
        torch.testing.assert_close(
            matrix.pooled, pooled_by_loops(expected, matrix.segments), atol=1e-6, rtol=1e-4
        )
    first = detail.matrices[0].segments[0]
    for layer, heads in enumerate(detail.heads):
        expected = whole[layer][0, :, n - 1, first : first + N_VISUAL].float()
        torch.testing.assert_close(heads, expected, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("method", ["libra", "fastv", "vanilla", "prumerge", "illava"])
def test_detail_follows_the_compressed_sequence(lvlm, method):
    images = [make_image(0), make_image(1, 40, 90)]
    trace = ask(lvlm, method, images=images).trace
    for row, heads in zip(trace.importance, trace.detail.heads, strict=True):
        torch.testing.assert_close(heads.mean(0), row)
    for layer, matrix in trace.detail.matrices.items():
        before, n_image, n_text, n_output = matrix.segments
        assert n_image == trace.counts[layer] and n_output == len(trace.words) - 1
        last = from_log_codes(matrix.raw)[before + n_image + n_text - 1]
        torch.testing.assert_close(
            last[before : before + n_image],
            trace.importance[layer],
            rtol=0.04,
            atol=2.0**-23,
        )


def test_full_tracing_changes_nothing_else(lvlm):
    for method in ("vanilla", "libra", "illava"):
        plain, full = (ask(lvlm, method, tracing).trace for tracing in (True, "full"))
        assert plain.detail is None and full.detail is not None
        assert [w.top for w in plain.words] == [w.top for w in full.words]
        assert plain.counts == full.counts
        for a, b in zip(plain.importance, full.importance, strict=True):
            assert torch.equal(a, b)


def test_the_encoder_rows_are_its_own_matrices(lvlm):
    """Against the attention of every query, one head and one query at a time."""
    trace = ask(lvlm, "fastv").trace
    tower, family = lvlm.family.tower, lvlm.family
    last = family.last_encoder_layer
    assert tuple(trace.detail.encoder) == spread_layers(last + 1)
    assert last < N_ENCODER_LAYERS
    with torch.no_grad():
        pixels = family.image_processor([make_image()], return_tensors="pt").pixel_values
        states = tower(pixels.double(), output_hidden_states=True).hidden_states
    for layer, row in trace.detail.encoder.items():
        block = tower.encoder.layers[layer]
        attn, x = block.self_attn, block.layer_norm1(states[layer][0])
        total = torch.zeros(len(x), dtype=torch.float64)
        for head in range(attn.num_heads):
            cut = slice(head * attn.head_dim, (head + 1) * attn.head_dim)
            query, key = attn.q_proj(x)[:, cut], attn.k_proj(x)[:, cut]
            for q in query:
                total += (key @ q * attn.head_dim**-0.5).softmax(0) / attn.num_heads / len(x)
        torch.testing.assert_close(row, total[1:].float(), atol=1e-6, rtol=1e-4)


def test_merged_patches_have_no_encoder_row_afterwards(lvlm):
    images = [make_image(0), make_image(1, 40, 90)]
    trace = ask(lvlm, "illava", images=images, encoder_layers=(0, 2)).trace
    encoder = [event for event in trace.events if event.site == "encoder"]
    assert len(encoder) == 2
    for layer, row in trace.detail.encoder.items():
        done = sum(event.layer < layer for event in encoder)
        standing = torch.zeros(len(trace.layout), dtype=torch.bool)
        standing[trace.lineage(done).slot] = True
        assert torch.equal(~row.isnan(), standing), layer
    # The scores by which the first event ranked are the attention received in its own layer.
    received = encoder[0].reduction.evidence["importance"]
    torch.testing.assert_close(trace.detail.encoder[0], received.float(), atol=1e-6, rtol=1e-4)


def test_shared_features_carry_the_encoders_attention(lvlm):
    image = make_image()
    for tracing, layers in ((True, 0), ("full", len(spread_layers(N_ENCODER_LAYERS - 1)))):
        features = lvlm.encode([image], tracing=tracing)
        trace = ask(lvlm, images=[image], features=features).trace
        assert len(trace.detail.encoder) == layers


def test_similarities_are_those_that_the_method_saw(lvlm):
    trace = ask(lvlm, tau=0.3).trace
    assert list(trace.detail.similarity) == [0, 1, 2]
    for i, event in enumerate(trace.events):
        facts = event.reduction.evidence
        matrix = trace.detail.similarity[i].matrix()
        step = (trace.detail.similarity[i].high - trace.detail.similarity[i].low) / 510
        for token, best in enumerate(facts["best_target"].tolist()):
            if best >= 0:
                likeness = float(facts["similarity"][token])
                assert abs(float(matrix[token, best]) - likeness) <= step + 1e-5
    assert ask(lvlm, "fastv").trace.detail.similarity == {}
    assert list(ask(lvlm, "turbo").trace.detail.similarity) == [0]


@pytest.mark.parametrize("tracing", ["none", "FULL", 2, None, []])
def test_tracing_is_one_of_three(lvlm, tracing):
    with pytest.raises(InputError, match="tracing must be False, True or 'full'"):
        ask(lvlm, tracing=tracing)


def test_what_recording_takes_is_none_of_the_answers_time(lvlm, monkeypatch):
    """On a clock that goes on by a second while something is recorded, and else stands still."""
    clock, beginning = [0.0], [False]

    def ticking(device):
        beginning[0] = not beginning[0]
        clock[0] += not beginning[0]
        return clock[0]

    monkeypatch.setattr(generation, "now", lambda device: clock[0])
    monkeypatch.setattr(recorder, "now", ticking)
    times = ask(lvlm).trace.timings
    assert clock[0] >= N_LAYERS
    assert times.prefill == 0 and set(times.decode) == {0}
