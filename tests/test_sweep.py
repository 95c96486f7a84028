import numpy as np
import pytest

from libra import methods
from libra.errors import InputError
from libra.reduction import Fate
from libra.sweep import Setting, settings, sweep
from tests.conftest import N_LAYERS, N_VISUAL, QUESTION, make_image


@pytest.fixture
def request_(image):
    return {"images": [image], "question": QUESTION, "max_new_tokens": 2}


def test_every_ratio_is_held_against_every_layer_and_vanilla():
    chosen = settings("libra", 8, (0.5, 0.9), (1, 5))
    assert chosen == [
        Setting(0.0, None),
        *(Setting(ratio, layer) for layer in (1, 5) for ratio in (0.5, 0.9)),
    ]
    assert [s.layer for s in settings("fastv", 32, (0.5,))[1:]] == [3, 7, 15, 23]
    assert settings("fastervlm", 8, (0.5,))[1:] == [Setting(0.5, None)]


def test_one_layer_and_arrays_are_fine():
    expected = settings("fastv", 8, (0.5, 0.75), (3,))
    assert settings("fastv", 8, np.array([0.5, 0.75]), 3) == expected
    assert settings("fastv", 8, (ratio for ratio in (0.5, 0.75)), np.array([3])) == expected


@pytest.mark.parametrize(
    ("method", "ratios", "layers", "words"),
    [
        ("vanilla", (0.5,), (), "no ratio"),
        ("libra", (), (), "at least one"),
        ("libra", (0.5,) * 26, (1, 2, 3, 4), "more than 100"),
    ],
)
def test_what_cannot_be_swept_over_is_said(method, ratios, layers, words):
    with pytest.raises(InputError, match=words):
        settings(method, 8, ratios, layers)


def test_each_setting_is_the_answer_to_that_setting_alone(lvlm, request_):
    chosen = settings("libra", N_LAYERS, (0.5, 0.75), (1, 5))
    runs = list(sweep(lvlm, "libra", chosen, **request_))
    assert [row.setting for row, _ in runs] == chosen
    first, _ = runs[0]
    assert (first.flops_share, first.kv_share, first.prefill_share, first.same) == (1, 1, 1, True)
    for setting, (row, trace) in zip(chosen[1:], runs[1:], strict=True):
        alone = lvlm.answer(
            **request_, method="libra", ratio=setting.ratio, layers=(setting.layer,)
        )
        assert (row.answer, row.tokens) == (alone.text, alone.trace.counts[-1])
        assert trace.counts == alone.trace.counts and trace.counts[0] == N_VISUAL
        assert row.same == (row.answer == first.answer)
        assert row.flops_share == alone.trace.cost.flops / alone.trace.cost.vanilla_flops
        assert row.kv_share == alone.trace.cost.kv_bytes / alone.trace.cost.vanilla_kv_bytes
        facts = row.facts()
        assert (facts["ratio"], facts["layer"]) == (setting.ratio, setting.layer)


def test_a_prefill_is_measured_in_turns_with_vanillas(lvlm, request_, monkeypatch):
    # A first run, vanilla's turns, and those of the setting, which begin with its answer.
    first, vanilla = 9.0, [0.1] * 6
    turns = [0.1, 0.2, 0.2, 0.8, 3.0, 4.0]  # ours and vanilla's, on a machine that slows down
    seconds, answer = iter([first, *vanilla, *turns]), lvlm.answer

    def timed(**request):
        result = answer(**request)
        result.trace.timings.prefill = next(seconds)
        return result

    monkeypatch.setattr(lvlm, "answer", timed)
    runs = sweep(lvlm, "libra", settings("libra", N_LAYERS, (0.5,), (1,)), **request_)
    plain, ours = (row for row, _ in runs)
    assert (plain.prefill_low, plain.prefill_share, plain.prefill_high) == (1, 1, 1)
    assert (ours.prefill_low, ours.prefill_share, ours.prefill_high) == (0.25, 0.5, 0.75)
    assert ours.prefill_s == 0.2


def test_bad_settings_are_refused_before_anything_runs(lvlm, request_, monkeypatch):
    monkeypatch.setattr(lvlm, "answer", None)
    for ratios, layers in (((0.5, 1.5), (1,)), ((0.5,), (1, 99))):
        with pytest.raises(InputError, match="must"):
            next(sweep(lvlm, "libra", settings("libra", 8, ratios, layers), **request_))


def test_a_count_that_would_overrule_every_ratio_is_refused(lvlm, request_):
    chosen = settings("visionzip", N_LAYERS, [0.5])
    with pytest.raises(InputError, match="dominant overrules"):
        next(sweep(lvlm, "visionzip", chosen, **request_, dominant=2, contextual=1))
    forced = sweep(lvlm, "fastv", settings("fastv", N_LAYERS, [0.5], [2]), **request_, keep=[3])
    _, (_, trace) = forced  # patches that stay overrule nothing
    assert trace.events[0].reduction.fate()[3] == Fate.KEPT


@pytest.mark.parametrize("method", [m for m in methods.names() if m != "vanilla"])
def test_every_method_with_a_ratio_can_be_swept(lvlm, method):
    request = {"images": [make_image()], "question": QUESTION, "max_new_tokens": 1}
    chosen = settings(method, N_LAYERS, (0.5,), (3,))
    rows = [row for row, _ in sweep(lvlm, method, chosen, **request)]
    assert len(rows) == 2 and rows[1].tokens < N_VISUAL
    assert rows[0].steps == 0 < rows[1].steps


def test_a_layer_is_swept_once_and_every_row_says_what_was_asked(lvlm):
    with pytest.raises(InputError, match="once, but these are 3, 3"):
        settings("libra", N_LAYERS, (0.5,), (3, 3))
    request = {"images": [make_image()], "question": QUESTION, "max_new_tokens": 1}
    chosen = settings("libra", N_LAYERS, (0.5,), (3,))
    rows = [row.facts() for row, _ in sweep(lvlm, "libra", chosen, **request)]
    asked = [(row["model"], row["method"], row["question"]) for row in rows]
    assert asked == [(lvlm.name, name, QUESTION) for name in ("vanilla", "libra")]
