"""The parts of the page that need no browser: settings, numbers, knowledge, diagrams, errors."""

import json
import re
from dataclasses import replace

import gradio as gr
import numpy as np
import pytest
import torch
from PIL import Image

import viz
from libra import methods
from libra.errors import InputError
from libra.methods import Tokens
from libra.reduction import Fate, Reduction
from libra.trace import Event, Trace, Word
from page import (
    diagrams,
    examples,
    knowledge,
    legends,
    panels,
    plan,
    readouts,
    scrubber,
    texts,
    views,
)
from page.controls import _ratio_help, control
from page.errors import explained
from page.readouts import hardly
from page.shown import Result, Shown
from page.visit import _status_of_stored
from tests.conftest import N_VISUAL, QUESTION, make_image
from tests.make_trace import make_trace
from viz.heat import NO_TOKEN


@pytest.fixture(scope="module")
def trace(lvlm) -> Trace:
    request = {"images": [make_image()], "question": QUESTION, "max_new_tokens": 3}
    return lvlm.answer(**request, layers=(1, 3)).trace


@pytest.mark.parametrize(
    ("text", "layers"), [("", None), ("  ", None), ("3", (3,)), ("1, 3,5", (1, 3, 5))]
)
def test_layers_are_read_from_text(text, layers):
    assert plan.parse_layers(text) == layers


@pytest.mark.parametrize("text", ["one", "1;3", "1,,3", "1.5"])
def test_other_texts_are_no_layers(text):
    with pytest.raises(InputError, match="whole numbers"):
        plan.parse_layers(text)


def test_empty_settings_keep_the_defaults_of_the_method():
    request = plan.request("p.png", "q", "libra", {"tau": 0.5, "eta": None, "keep": ""})
    assert request == {"images": ["p.png"], "question": "q", "method": "libra", "tau": 0.5}


def test_every_method_is_offered_in_exactly_one_group():
    grouped = [name for names in plan.grouped().values() for name in names]
    assert sorted(grouped) == sorted(methods.names())


def test_methods_are_grouped_by_where_they_act_and_baselines_apart():
    groups = {key: plan.grouped()[key] for key in texts.GROUPS}
    assert groups["none"] == ["vanilla"]
    assert "fastv" in groups["prune"] and "libra" in groups["merge"]
    assert "prumerge" in groups["connector"] and {"tome", "illava"} <= set(groups["encoder"])
    assert set(groups["baseline"]) == {"greedy", "kmeans", "random", "sequential", "spatial"}


@pytest.mark.parametrize("name", [n for n in methods.names() if n != "vanilla"])
def test_every_method_links_to_its_paper_and_names_the_section(name):
    assert name in texts.PAPERS, "link its paper in PAPERS of page/texts.py"
    assert f'<a href="{texts.PAPERS[name]}"' in panels.cite(name)
    assert methods.get(name).paper.split(",")[0] in panels.cite(name)


def test_every_parameter_is_set_by_the_slider_or_by_a_control_of_its_own():
    for name in methods.names():
        own = {p.name for p in plan.own_parameters(name)}
        slider = {"ratio"} if plan.slides(name) else set()
        assert own | slider == {p.name for p in methods.parameters(name)}
        assert not own & slider


def test_a_stage_shows_the_attention_that_decides_the_next(trace):
    shares = [float(row.sum()) for row in trace.importance]
    most = max(range(4, 8), key=shares.__getitem__)  # of the layers after the last event
    assert [views.deciding_layer(trace, stage) for stage in range(3)] == [1, 3, most]
    rows = [torch.full_like(row, i == 6) for i, row in enumerate(trace.importance)]
    assert views.deciding_layer(replace(trace, importance=rows, attention=[rows]), 2) == 6


def test_stages_are_labelled_with_their_tokens(trace):
    labels = [label for label, _ in views.stage_choices(trace)]
    assert labels == [f"Before · {N_VISUAL}", "After layer 1 · 8 + 1", "After layer 3 · 4 + 1"]


@pytest.mark.parametrize("overlay", texts.OVERLAYS)
def test_every_overlay_draws_every_stage(trace, overlay):
    pictures = [views.picture(trace, overlay, stage, legend=False) for stage in range(3)]
    assert len({picture.size for picture in pictures}) == 1
    assert pictures[1].tobytes() != pictures[2].tobytes()
    assert all(views.caption(trace, overlay, stage) for stage in range(3))


@pytest.mark.parametrize("overlay", views.OF_MERGED)
def test_where_nothing_has_been_merged_no_group_is_spoken_of(lvlm, overlay):
    request = {"images": [make_image(0)], "question": QUESTION, "max_new_tokens": 1}
    dropped = lvlm.answer(**request, method="fastv", layers=(1,)).trace
    for stage in range(2):
        assert views.caption(dropped, overlay, stage).endswith(texts.NOTHING_MERGED)


@pytest.mark.parametrize("overlay", ["importance", "word"])
def test_a_heat_map_of_next_to_nothing_says_so(trace, overlay):
    faint = replace(
        trace,
        importance=[row * 1e-4 for row in trace.importance],
        attention=[[row * 1e-4 for row in rows] for rows in trace.attention],
    )
    assert views.caption(faint, overlay, 1).endswith("on the picture. An earlier stage shows more.")
    assert views.caption(faint, overlay, 0).endswith(
        "of the attention in this layer is on the picture."
    )
    assert "of the attention in this layer" not in views.caption(trace, overlay, 1)


def test_a_new_answer_opens_at_its_end_unless_another_stage_was_chosen(lvlm, trace):
    shown = Shown()
    shown.show(lvlm.answer(images=[make_image()], question=QUESTION, method="vanilla").trace)
    assert shown.stage == 0
    shown.show(trace)
    assert shown.stage == len(trace.events) == 2
    shown.stage = 1
    shown.show(trace)
    assert shown.stage == 1


def prumerge_plus(n_outliers: int, pictures: int = 1, **params) -> Trace:
    """PruMerge+ where so many of 576 patches stand out in each picture."""
    trace = make_trace("prumerge+", pictures=[np.zeros((24, 24, 3), np.uint8)] * pictures)
    alpha = torch.linspace(0, 0.001, 576)
    alpha[-n_outliers - 1 : -1] = 1.0
    tokens = Tokens(alpha[:, None], importance=alpha.softmax(0), keys=alpha[:, None])
    reduction = methods.create("prumerge+", **params).reduce(tokens)
    whole = Reduction.side_by_side([reduction] * pictures)
    return replace(
        trace,
        events=[Event("connector", -1, whole)],
        counts=[whole.n_out] * 8,
        ratio=params.get("ratio", 1 - whole.n_kept / whole.n_in),
        params={name: value for name, value in params.items() if name == "keep"},
    )


def test_a_method_that_keeps_nearly_everything_by_its_own_rule_is_explained():
    """With every sixth patch an outlier, the steps of PruMerge+ are 1."""
    most = prumerge_plus(100)
    assert readouts.staircase(most) == "576 › 575 + 1"
    words = hardly(most)
    assert "The method's own rule keeps 575 of 576 tokens here, each blended" in words
    assert "one more that sums up the rest" in words and "here they are 1" in words
    words = hardly(prumerge_plus(100, pictures=2))
    assert "own rule keeps 1150 of 1152 tokens" in words
    assert "2 more that sum up the rest" in words
    assert not hardly(prumerge_plus(40))
    assert not hardly(prumerge_plus(100, ratio=0.01))
    assert not hardly(replace(most, method="unheard of", counts=[575] * 8))


def test_a_count_that_leaves_as_many_as_before_says_so():
    words = hardly(prumerge_plus(100, keep=575))
    assert words.startswith("575 of 576 tokens stay") and "rule" not in words


def test_what_removes_nothing_says_so(lvlm, trace):
    assert not hardly(replace(trace, ratio=0.0))
    asked = {"images": [make_image()], "question": QUESTION, "method": "fastv"}
    same, late = (lvlm.answer(**asked, **how).trace for how in ({"ratio": 0.0}, {"layers": (7,)}))
    assert hardly(same) == texts.NOTHING_REMOVED and hardly(late) == texts.AFTER_THE_LAST
    for pictures in (1, 2):
        assert hardly(prumerge_plus(100, pictures, ratio=0.0)) == texts.NOTHING_REMOVED


def test_times_keep_their_digits():
    values = (1.6e-5, 1.26e-3, 0.061, 1.238)
    assert [*map(readouts.seconds, values)] == ["0.016 ms", "1.3 ms", "61 ms", "1.24 s"]


def test_vanilla_is_its_own_measure_and_removes_nothing(lvlm, trace):
    plain = replace(trace, method="vanilla")
    assert "this is vanilla" in readouts.readouts(plain)
    assert "not measured yet" in readouts.readouts(trace)
    assert _ratio_help("vanilla") == texts.NO_RATIO
    assert _ratio_help("prumerge") == texts.RATIO_ELSEWHERE
    assert _ratio_help("libra") == _ratio_help("tome") == texts.RATIO_HELP
    assert _ratio_help("illava") == texts.RATIO_OF_DECODER


def test_a_stored_answer_says_what_the_model_says_without_compression(trace):
    shown = Shown()
    shown.show(trace, replace(trace, method="vanilla"))
    assert _status_of_stored(shown, "Note.") == f"{texts.FROM_EXAMPLE} Note."
    shown.show(trace, replace(trace, method="vanilla", answer="otherwise"))
    said = texts.UNLIKE_VANILLA.format("otherwise")
    assert _status_of_stored(shown, "") == f"{texts.FROM_EXAMPLE} {said}"


@pytest.mark.parametrize(
    ("size", "said", "framed"),
    [((96, 64), "67 %", False), ((64, 192), "33 %", True), ((66, 64), "", False)],
)
def test_a_picture_that_is_cropped_says_how_much_the_model_sees(lvlm, size, said, framed):
    trace = lvlm.answer(images=[Image.new("RGB", size)], question=QUESTION).trace
    sentence = texts.CROPPED.format(said) if said else ""
    assert views.cropped(trace) == sentence + texts.FRAMED * framed


def test_more_than_vanilla_is_marked():
    """Its bar is full either way."""
    assert "over" in readouts._bar(1.2, "") and "over" not in readouts._bar(1.0, "")


def test_numbers_have_units():
    assert readouts.flops(2.08e9) == "2.08 GFLOPs"
    assert readouts.size(9.5 * 2**20) == "9.5 MiB"
    assert (readouts.seconds(0.061), readouts.seconds(1.239)) == ("61 ms", "1.24 s")
    shares = (0, 0.0002, 0.0312, 0.47, 0.9499, 0.99951, 1 - 1e-9, 1, 1.02)
    words = ["0 %", "< 0.1 %", "3.1 %", "47 %", "95 %", "> 99.9 %", "> 99.9 %", "100 %", "102 %"]
    assert [*map(readouts.percent, shares)] == words


def test_a_column_of_the_comparison_has_one_unit(trace):
    """775 MFLOPs above 4.83 GFLOPs would look like more."""
    results = []
    for name, scale in (("vanilla", 1.0), ("fastv", 0.16)):
        cost = replace(trace.cost, flops=4.83e9 * scale, kv_bytes=5 * 2**20 * scale)
        times = replace(trace.timings, prefill=2.0 * scale, encoder=0.0, decode=[])
        results.append(Result(name, "yes", replace(trace, method=name, cost=cost, timings=times)))
    table = readouts.comparison([*results, Result("libra", error="no room")])
    assert "4.83 GFLOPs" in table and "0.773 GFLOPs" in table and "MFLOPs" not in table
    assert "5 MiB" in table and "0.8 MiB" in table and "KiB" not in table
    assert "2.00 s" in table and "0.32 s" in table and " ms" not in table


def test_the_comparison_says_where_tokens_went_and_where_hardly_any_did(trace):
    """The same counts cost more after a layer than before the decoder."""
    plus = prumerge_plus(100)
    results = [Result(name, "yes", t) for name, t in (("libra", trace), ("prumerge+", plus))]
    table = readouts.comparison(results)
    layers = ", ".join(str(event.layer) for event in trace.events)
    assert f"<small>after layers {layers}</small>" in table
    assert "<small>after the encoder</small>" in table
    assert "PruMerge+: The method&#x27;s own rule" in table and "Libra-Merging: " not in table


def test_units_never_need_a_power_of_ten():
    assert readouts.size(1010 * 1024) == "0.986 MiB" and readouts.flops(999.7e6) == "1 GFLOPs"
    assert readouts.flops(3e12 * 1000) == "3e+03 TFLOPs", "there is no larger one"
    assert readouts.seconds(0.0021, 3.0) == "0.0021 s"


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("fastervlm", "; the first step comes before them"),
        ("evit", "; the first 2 steps come before them"),
    ],
)
def test_steps_before_the_decoder_are_told_in_good_grammar(method, words):
    trace = make_trace(method, grid=(4, 4))
    trace = replace(trace, events=trace.events * (2 if method == "evit" else 1))
    assert words in readouts._columns(trace)


def test_compensation_tokens_are_not_counted_as_kept(trace):
    assert trace.events[0].reduction.n_out == N_VISUAL // 2 + 1
    assert readouts.staircase(trace) == f"{N_VISUAL} › {N_VISUAL // 2} + 1 › {N_VISUAL // 4} + 1"


def test_words_of_the_answer_cannot_inject_markup(trace):
    evil = "<img src=x onerror=alert(1)>"
    spoiled = Trace(**{**vars(trace), "question": evil})
    spoiled.words = [type(trace.words[0])(evil, 0.5, [(evil, 0.5)])]
    spoiled.answer = evil
    cards = (Result("m", evil, spoiled), Result("m", evil), Result(evil, error=evil))
    for fragment in (panels.answer(spoiled), *(panels.card(card, trace) for card in cards)):
        assert "<img" not in fragment
    assert "<img" not in panels.streaming(evil, evil, evil)


@pytest.fixture
def scenes(tmp_path) -> knowledge.Knowledge:
    things = [{"word": "cat", "plural": "cats"}, {"word": "polar bear", "plural": "polar bears"}]
    (tmp_path / "objects.json").write_text(json.dumps(things))
    return knowledge.of(str(tmp_path))


@pytest.mark.parametrize(
    "question",
    [
        "Is there a cat in the image?",
        "how many polar bears are there",
        "Is the cat to the left or to the right of the polar bear?",
        "Is the polar bear above or below the cat?",
        "What is in the bottom right corner?",
        "What is above the cat?",
        "Describe the image.",
    ],
)
def test_questions_of_the_trained_forms_are_covered(scenes, question):
    assert scenes.covers(question)


@pytest.mark.parametrize(
    "question", ["Is there a dog in the image?", "Why is the cat sad?", "Describe the cat."]
)
def test_other_questions_are_not_covered(scenes, question):
    assert not scenes.covers(question)


@pytest.mark.parametrize(
    ("question", "unknown"),
    [
        ("Is there a kangaroo in the image?", ["kangaroo"]),
        ("Is the cat above or below the red kite?", ["red kite"]),
        ("What color is the circle?", ["circle"]),
        ("Why is the cat sad?", []),
        ("Is there a cat in the image?", []),
    ],
)
def test_objects_that_it_does_not_know_are_named(scenes, question, unknown):
    assert scenes.unknown(question) == unknown


def test_a_model_of_the_open_world_may_be_asked_anything(tmp_path):
    assert knowledge.of(str(tmp_path / "large")).covers("Why is the cat sad?")


def test_example_questions_on_the_learn_tab_match_their_own_forms():
    words = ("cat", "car", "tree", "ball")
    known = knowledge.Knowledge("", (*words, "dog"), ("dogs",))
    assert all(known.covers(example) for _, example, _, _ in texts.QUESTION_FORMS)


@pytest.mark.parametrize("name", methods.names())
def test_a_diagram_has_the_edges_of_the_map_that_the_method_makes(name):
    tokens, _ = diagrams.toy()
    reduction = methods.create(name).reduce(tokens)
    drawing = diagrams.diagram(name)
    assert drawing.count("<line") == len(reduction.source)
    assert drawing.count('class="token') == reduction.n_in + reduction.n_out


def test_examples_without_their_picture_are_left_out(tmp_path):
    assert examples.load(tmp_path) == []
    entry = {"question": "q", "title": "t", "alt": "a", "credit": "c"}
    entries = [{"image": "there.png", **entry}, {"image": "gone.png", **entry}]
    (tmp_path / "examples.json").write_text(json.dumps(entries))
    make_image().save(tmp_path / "there.png")
    (found,) = examples.load(tmp_path)
    assert found.image.name == "there.png" and found.trace() is None
    shown = examples.first_shown([found])
    assert shown.trace is None and shown.picture == str(tmp_path / "there.png")


def test_a_new_trace_keeps_the_stage_if_it_has_it(trace, lvlm):
    plain = lvlm.answer(
        images=[make_image()], question=QUESTION, method="vanilla", max_new_tokens=1
    ).trace
    shown = Shown(trace, stage=2, word=1)
    shown.show(trace)
    assert (shown.stage, shown.word) == (2, 0)
    shown.show(plain)
    assert shown.stage == 0


def test_errors_are_shown_as_text_not_as_markup():
    with pytest.raises(gr.Error) as error, explained():
        raise InputError("<b>cat</b>.png is 'empty'")
    assert error.value.message == "&lt;b&gt;cat&lt;/b&gt;.png is 'empty'"


def test_a_number_that_may_be_left_out_is_a_field_for_text():
    eta = next(p for p in methods.parameters("libra") if p.name == "eta")
    assert control(eta).get_config()["placeholder"] == "automatic"
    assert [plan.read(eta, value) for value in (None, "", " ", "0.5", 2)] == [None] * 3 + [0.5, 2]
    with pytest.raises(InputError, match="eta: give a number or nothing, not 'much'"):
        plan.read(eta, "much")
    with pytest.raises(InputError, match="a whole number"):
        plan.parse_number("1.5", "Visual tokens", int)


def test_tokens_that_go_on_are_joined(trace):
    said = [Word(text, 1.0, [(text, 1.0)]) for text in ("a", " cat", ",", " two", "s")]
    answer = panels.answer(replace(trace, words=said))
    assert re.findall(r'class="joined"[^>]*>([^<]*)<', answer) == [",", "s"]


def test_legends_name_what_there_is():
    everything = legends.marks("fate", set(Fate))
    assert all(name in everything for name in ("kept", "merged", "summed up", "dropped"))
    some = legends.marks("fate", {Fate.KEPT, Fate.MERGED})
    assert "merged" in some and "summed up" not in some and "dropped" not in some
    assert "summed up" not in legends.marks("groups", {Fate.KEPT, Fate.DROPPED})


def test_a_picture_of_a_comparison_may_be_none_of_the_answers(trace):
    shown = Shown(trace=trace, image=2)
    assert shown.own_image == len(trace.images) - 1 == 0
    assert Shown().own_image == 0


def test_the_legend_counts_the_picture_that_is_shown(lvlm):
    images = [make_image(0), make_image(1)]
    request = {"images": images, "question": QUESTION, "method": "fastv", "max_new_tokens": 1}
    trace = lvlm.answer(**request).trace
    here = trace.layout.image == 1
    fate = trace.lineage(1).fate()[here]
    words = legends.legend(trace, "fate", 1, 0, image=1)
    assert f"kept {int((fate == Fate.KEPT).sum())}" in words
    assert f"dropped {int((fate == Fate.DROPPED).sum())}" in words


@pytest.mark.parametrize("method", ["libra", "turbo", "kmeans", "greedy"])
def test_groups_are_counted_as_the_figure_counts_them(lvlm, method, monkeypatch):
    """A group may have its place in one picture and patches in another."""
    images = [make_image(0), make_image(1)]
    request = {"images": images, "question": QUESTION, "method": method, "max_new_tokens": 1}
    trace, written = lvlm.answer(**request).trace, []
    monkeypatch.setattr(viz.groups, "with_legend", lambda picture, marks: written.append(marks))
    for image in (0, 1):
        lineage, here = trace.lineage(1), trace.layout.image == image
        group, fate = lineage.group()[here], lineage.fate()[here]
        sizes = lineage.group().clamp_min(0).bincount()
        together = {g for g in group[(fate == Fate.KEPT) | (fate == Fate.MERGED)].tolist()}
        groups = sum(int(sizes[g]) > 1 for g in together)
        words = legends.legend(trace, "groups", 1, 0, image=image)
        viz.group_map(trace, 1, image=image)
        said = written.pop()[0][1]
        assert f"{said}</li>" in words and said.startswith(f"{groups} group" if groups else "8 sin")


def test_the_groups_of_a_frame_come_to_the_patches_that_are_kept_of_it():
    """A group may reach into a frame and have its token in another one."""
    trace = Trace.load(examples.FOLDER / "burrow.trace.zip")
    for image in range(len(trace.images)):
        words = legends.legend(trace, "groups", 3, 0, image=image)
        found = re.search(r"(\d+) groups(?: \((\d+) with their token here\))?", words)
        singles = re.search(r"(\d+) single", words)
        own = int(found[2] or found[1]) + int(singles[1] if singles else 0)
        assert f": {own} of its 576 patches kept." in scrubber.place(trace, image, 3)


def test_a_heat_map_says_whether_tokens_of_this_very_picture_are_gone(lvlm):
    images = [make_image(0), make_image(1)]
    n = 16
    request = {"images": images, "question": QUESTION, "method": "fastv", "max_new_tokens": 1}
    trace = lvlm.answer(**request, drop=range(n), ratio=0.5).trace  # all of the first picture
    assert (trace.layout.image == 0).sum() == n
    first, second = (legends.legend(trace, "importance", 1, 0, image=i) for i in (0, 1))
    assert NO_TOKEN in first and NO_TOKEN not in second


@pytest.mark.parametrize("method", ["turbo", "libra", "kmeans"])
def test_a_merged_patch_has_a_token_elsewhere(lvlm, method):
    """Nothing is dropped, so no heat map says that a token is gone."""
    params = {"tau": 0.99} if method == "libra" else {}
    request = {"images": [make_image()], "question": QUESTION, "max_new_tokens": 1}
    trace = lvlm.answer(**request, method=method, **params).trace
    words = legends.legend(trace, "importance", len(trace.events), 0)
    lineage = trace.lineage(len(trace.events))
    assert NO_TOKEN not in words
    assert ("extra token" in words) == bool((lineage.fate() == Fate.COMPENSATED).any())
    assert ("extra token" in words) == (method == "libra")


@pytest.mark.parametrize("overlay", ["fate", "kept", "groups", "importance", "word"])
def test_the_page_words_a_legend_as_the_saved_picture_does(trace, overlay, monkeypatch):
    """Of patches alone: two tokens here are none, like the line breaks of a tiled picture."""
    row = trace.layout.row.clone()
    row[:2] = -1
    trace = replace(trace, layout=replace(trace.layout, row=row))
    written = []

    def legend(card, marks):
        written.extend(text for _, text in marks)
        return card

    for module in (viz.fates, viz.groups, viz.selection, viz.heat):
        monkeypatch.setattr(module, "with_legend", legend)
    for stage in range(3):
        written.clear()
        views.picture(trace, overlay, stage)
        page = legends.legend(trace, overlay, stage, 0).replace('<li>0<i class="scale">', "<li><i>")
        said = [re.sub("<[^>]*>", "", key) for key in page.split("</li>")[:-1]]
        assert sorted(said) == sorted(written), "the same facts, if in another order"


def test_the_same_trace_is_the_same_file(trace):
    assert views.save_trace(trace) == views.save_trace(trace)


def test_another_picture_begins_with_the_first(trace):
    shown = Shown(picture="a")
    shown.show(trace)
    shown.image = 1
    shown.picture = "b"
    shown.show(trace)
    assert shown.image == 0
