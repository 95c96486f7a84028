"""What holds in every family: streams, figures, odd media, follow-up questions."""

import itertools

import conftest
import micro_llava
import micro_qwen
import micro_videollama
import pytest
from test_conversation import n_read, replay, same, talking

import libra
import viz
from libra import InputError
from libra.conversation import Memory
from libra.lvlm import LVLM
from libra.video import Clip
from viz import inspector

QUESTION = "is there a cat in the image ?"
BUILD = {
    "llava": conftest.make_lvlm,
    **{name: lambda n=name: talking(micro_llava.lvlm_of(n)) for name in micro_llava.FAMILIES},
    **{name: lambda n=name: LVLM(n, micro_qwen.make_family(n)) for name in micro_qwen.FAMILIES},
    **{f"videollama2-{k}": lambda k=k: micro_videollama.make_lvlm(k) for k in ("mistral", "qwen2")},
    "videollama3": micro_videollama.make_lvlm_3,
}


@pytest.fixture(scope="module", params=BUILD)
def lvlm(request):
    with BUILD[request.param]() as model:
        yield model


def clip(n, width=80, height=60):
    """A video of noise, two frames a second."""
    frames = [conftest.make_image(i, width, height) for i in range(n)]
    return Clip(frames, [0.5 * i for i in range(n)], 0.5 * n, "noise.mp4")


def ask(lvlm, **request):
    """An answer of a few words."""
    return lvlm.answer(**{"question": QUESTION, "max_new_tokens": 3} | request)


def test_every_figure_and_the_inspector_of_a_video(lvlm):
    """All figures but what the encoder has not, or what did not happen."""
    trace = ask(lvlm, video=clip(4), method="libra", tracing="full").trace
    missing = {name for name, spec in viz.FIGURES.items() if spec.missing(trace)}
    without = set() if lvlm.family.has_cls else {"cls_distribution"}
    assert without <= missing <= without | {"compensation_lens", "accuracy"}
    for name in viz.FIGURES.keys() - missing:
        assert viz.FIGURES[name].function(trace), name
    seen = inspector.view({"libra": trace})
    assert len(seen["traces"][0]["pictures"]) == len(trace.images)


def test_every_step_of_a_stream_extends_the_answer(lvlm):
    request = {"question": QUESTION, "video": clip(3), "method": "libra", "max_new_tokens": 4}
    *steps, last = lvlm.stream(**request)
    texts = [step.text for step in (*steps, last)]
    assert all(after.startswith(text) for text, after in itertools.pairwise(texts))
    assert steps and not any(step.trace for step in steps)
    assert last.text == last.trace.answer == lvlm.answer(**request).text


def test_a_video_of_one_frame(lvlm):
    trace = ask(lvlm, video=clip(1)).trace
    assert trace.words and trace.times[0] == 0 and set(trace.times) == {0.0}
    assert trace.counts[-1] < trace.counts[0] == len(trace.layout)


def test_pictures_of_wildly_different_sizes(lvlm, tmp_path):
    sizes = ((90, 70), (1, 1), (400, 9), (9, 400))
    images = [conftest.make_image(i, *size) for i, size in enumerate(sizes)]
    trace = ask(lvlm, images=images).trace
    assert trace.words and trace.times is None
    assert trace.layout.image.unique().tolist() == list(range(len(trace.images)))
    assert len(trace.images) >= len(images)
    assert (trace.layout.box >= 0).all() and (trace.layout.box <= 1).all()
    trace.save(tmp_path / "trace.zip")
    assert libra.Trace.load(tmp_path / "trace.zip").counts == trace.counts


def test_too_many_pictures_are_refused_at_once(lvlm):
    with pytest.raises(InputError, match="These are 200 pictures; at most 64 are possible"):
        ask(lvlm, images=[conftest.make_image(0, 9, 9)] * 200)


@pytest.mark.parametrize("method", ["vanilla", "libra"])
def test_a_follow_up_about_a_video_goes_behind_its_cache(lvlm, method, monkeypatch):
    """The same as the whole conversation anew, with the first question's reductions."""
    memory, request = Memory(), {"video": clip(4), "method": method, "max_new_tokens": 4}
    counts, handle = n_read(lvlm)
    first = lvlm.answer(**request, question=QUESTION, memory=memory)
    n_calls, follow = len(counts), {"question": "what is there ?"}
    follow["history"] = [(QUESTION, first.text)]
    answer = lvlm.answer(**request, **follow, memory=memory)
    handle.remove()
    assert counts[n_calls] < counts[0] / 2 and answer.trace.timings.encoder == 0
    replay(monkeypatch, first.trace)
    same(answer.trace, lvlm.answer(**request, **follow).trace)
