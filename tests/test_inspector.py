"""The inspector's data and its stand-alone file, without a browser."""

import base64
import json
import re
from dataclasses import asdict, replace
from itertools import combinations, product

import numpy as np
import pytest
import torch
from conftest import QUESTION, make_image
from make_trace import make_trace, nothing_left, photo
from PIL import Image

from libra import methods
from libra.detail import ATTENTION_SCALE, Detail, Similarity
from libra.errors import InputError
from libra.methods import Tokens
from libra.reduction import Fate, Reduction
from libra.trace import Event, Trace, Word
from viz import inspector
from viz.agreement import blind_agreement
from viz.inspector.data import MAX_ATTENTION, packed
from viz.inspector.decisions import rule, what_if
from viz.inspector.export import STATIC, document
from viz.inspector.pane import SCRIPTS
from viz.inspector.tours import WRITTEN, tour
from viz.inspector.tours.steps import LOOKS
from viz.inspector.tours.stories import STORIES

SMALL = {"grid": (8, 8)}
OVERLAYS = {"fate", "groups", "importance", "attention", "agreement"}


@pytest.fixture(scope="module")
def libra():
    return make_trace("libra", **SMALL)


@pytest.fixture(scope="module")
def fastv():
    return make_trace("fastv", layers=(1,), **SMALL)


@pytest.fixture(scope="module")
def vanilla():
    return make_trace("vanilla", **SMALL)


def unpack(text: str) -> np.ndarray:
    kind, data = text.split(":")
    return np.frombuffer(base64.b64decode(data), f"<{kind}")


def in_full(trace: Trace) -> Trace:
    """The same with the similarities of all pairs of tokens before each event."""
    alike = {
        i: Similarity.of(torch.randn(event.reduction.n_in, 8))
        for i, event in enumerate(trace.events)
    }
    return replace(trace, detail=Detail(encoder={}, matrices={}, heads=[], similarity=alike))


def decide(method: str, n: int = 40, seed: int = 0, **params) -> tuple[Trace, Tokens]:
    """A trace with one event of `method` on random tokens, and those tokens."""
    generator = torch.Generator().manual_seed(seed)
    plain = make_trace("vanilla", grid=(5, 8), n_layers=2)
    tokens = Tokens(
        torch.randn(n, 4, generator=generator),
        importance=torch.rand(n, generator=generator) / n,
        generator=generator,
    )
    chosen = methods.create(method, **params)
    event = Event("decoder", 0, chosen.reduce(tokens))
    kept = [row[: event.reduction.n_out] for row in plain.importance[1:]]
    return (
        replace(
            plain,
            method=method,
            params=asdict(chosen),
            events=[event],
            importance=[tokens.importance, *kept],
            attention=[],
        ),
        tokens,
    )


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([0, 255], "u1"),
        ([-1, 3], "i1"),
        ([-1, 576], "i2"),
        ([65_536], "u4"),
        ([0.1], "f4"),
        ([], "u1"),
    ],
)
def test_arrays_take_the_smallest_type_and_come_back(values, kind):
    text = packed(np.array(values, float if kind == "f4" else int))
    assert text.split(":")[0] == kind
    assert unpack(text) == pytest.approx(np.array(values))


@pytest.mark.parametrize("method", ["libra", "fastv", "prumerge", "turbo", "illava", "evit"])
def test_stages_are_the_composed_maps(method):
    trace = make_trace(method, **SMALL)
    (shown,) = inspector.view({"it": trace})["traces"]
    assert [stage["name"] for stage in shown["stages"]] == trace.stages
    for i, stage in enumerate(shown["stages"]):
        lineage = trace.lineage(i)
        dense = np.zeros((lineage.n_out, lineage.n_in))
        np.add.at(
            dense,
            (unpack(stage["target"]), unpack(stage["source"])),
            unpack(stage["weight"]),
        )
        assert dense == pytest.approx(lineage.dense().numpy(), abs=1e-6)
        assert unpack(stage["fate"]).tolist() == lineage.fate().tolist()
        assert unpack(stage["group"]).tolist() == lineage.group().tolist()
        assert unpack(stage["slot"]).tolist() == lineage.slot.tolist()
        assert stage["extras"] == lineage.extras


def test_decisions_carry_evidence_and_the_weight_of_each_token(libra):
    (shown,) = inspector.view({"it": libra})["traces"]
    for event, decision in zip(libra.events, shown["decisions"], strict=True):
        reduction = event.reduction
        for name, fact in reduction.evidence.items():
            stored = unpack(decision["evidence"][name])
            assert np.array_equal(stored, fact.numpy(), equal_nan=fact.is_floating_point())
        heaviest = reduction.dense().max(0).values
        assert unpack(decision["weight"]) == pytest.approx(heaviest.numpy(), abs=1e-6)
    assert [d["spare"] for d in shown["decisions"]] == [
        (),
        *(event.reduction.extras for event in libra.events[:-1]),
    ]


def test_an_answer_without_events_still_shows_importance(vanilla):
    (shown,) = inspector.view({"it": vanilla})["traces"]
    (decision,) = shown["decisions"]
    assert unpack(decision["evidence"]["importance"]) == pytest.approx(
        vanilla.importance[-1].numpy()
    )
    assert set(unpack(decision["fate"]).tolist()) == {Fate.KEPT}
    assert decision["rule"] == "" and decision["whatIf"] == {}


def test_answers_without_attention_rows_can_be_shown(libra):
    untraced = replace(libra, importance=[], attention=[])
    (shown,) = inspector.view({"it": untraced})["traces"]
    assert shown["attention"]["words"] == [] and shown["attention"]["layers"] == []


def test_attention_rows_come_back_to_three_digits(libra):
    (shown,) = inspector.view({"it": libra})["traces"]
    attention = shown["attention"]
    assert attention["layers"] == list(range(8))
    ends = np.cumsum(attention["lengths"])[:-1]
    for word, text in enumerate(attention["words"]):
        rows = np.split(unpack(text).astype(np.float64) / ATTENTION_SCALE, ends)
        for layer, row in enumerate(rows):
            assert row == pytest.approx(libra.attention[word][layer].numpy(), rel=1e-3, abs=1e-9)


def test_long_answers_of_deep_models_keep_fewer_layers(libra):
    long = replace(
        libra,
        attention=[[torch.rand(576) for _ in range(40)] for _ in range(100)],
        importance=[torch.rand(576) for _ in range(40)],
        counts=[576] * 40,
        words=libra.words * 25,
    )
    (shown,) = inspector.view({"it": long})["traces"]
    layers = shown["attention"]["layers"]
    assert 2 <= len(layers) < 40 and layers[0] == 0 and layers[-1] == 39
    assert sum(shown["attention"]["lengths"]) * 100 <= MAX_ATTENTION


def test_equal_pictures_are_stored_once(libra, fastv):
    other = make_trace("fastv", layers=(1,), pictures=[photo(300, 200)], **SMALL)
    data = inspector.view({"a": libra, "b": fastv, "c": other})
    assert [trace["pictures"] for trace in data["traces"]] == [[0], [0], [1]]
    assert [(p["width"], p["height"]) for p in data["pictures"]] == [(512, 600), (300, 200)]


def test_an_answer_of_which_no_patch_is_left_can_be_shown_and_saved(fastv, tmp_path):
    empty = nothing_left(fastv)
    (shown,) = inspector.view({"it": empty})["traces"]
    assert set(unpack(shown["stages"][1]["fate"]).tolist()) == {Fate.DROPPED}
    inspector.save_animation(empty, tmp_path / "way.gif")
    with Image.open(tmp_path / "way.gif") as film:
        first = np.asarray(film.convert("RGB"), int)
        film.seek(film.n_frames - 1)
        assert np.asarray(film.convert("RGB"), int).std() < first.std() / 2  # all have faded


def test_nothing_to_show_is_an_error():
    with pytest.raises(InputError, match="at least one trace"):
        inspector.view({})


@pytest.mark.parametrize(
    ("method", "params", "expected"),
    [
        ("libra", {}, "interval"),
        ("libra", {"identify": "topk"}, "top"),
        ("fastv", {}, "top"),
        ("evit", {}, "top"),
        ("turbo", {}, "redundancy"),
        ("random", {}, ""),
        ("vanilla", {}, ""),
    ],
)
def test_the_rule_is_found_in_the_decision_itself(method, params, expected):
    trace, _ = decide(method, **params)
    assert rule(trace.events[0], ()) == expected


def test_a_forged_ranking_is_not_called_one():
    trace, _ = decide("fastv")
    event = trace.events[0]
    worst = event.reduction.evidence["importance"].sort().indices[:20].sort().values
    forged = Reduction.select(worst, 40, event.reduction.evidence)
    assert rule(replace(event, reduction=forged), ()) == ""


@pytest.mark.parametrize(
    ("method", "params", "keep", "rest", "more"),
    [
        ("libra", {}, 20, None, {"tau", "negative", "eta"}),
        ("libra", {"merge": "prune"}, 20, Fate.DROPPED, set()),
        ("libra", {"merge": "negative"}, 20, Fate.COMPENSATED, set()),
        ("libra", {"merge": "positive"}, 20, None, {"eta"}),
        ("libra", {"compensation": "none"}, 20, None, {"tau", "negative", "eta"}),
        ("fastv", {"ratio": 0.75}, 10, Fate.DROPPED, set()),
        ("evit", {}, 28, Fate.COMPENSATED, set()),
    ],
)
def test_what_can_be_decided_again(method, params, keep, rest, more):
    trace, tokens = decide(method, **params)
    can = what_if(trace, trace.events[0], ())
    assert can["keep"] == {"kept": keep, "of": 40, "rest": rest}
    assert set(can) - {"keep"} == more
    if "eta" in more:
        assert can["eta"] == pytest.approx(float(tokens.importance.mean()))
    if "negative" in more:
        lost = Fate.DROPPED if params.get("compensation") == "none" else Fate.COMPENSATED
        assert can["negative"] == lost


def test_similarities_are_stored_as_far_as_there_is_room(libra):
    (shown,) = inspector.view({"it": in_full(libra)})["traces"]
    for decision, event in zip(shown["decisions"], libra.events, strict=True):
        n, pairs = event.reduction.n_in, decision["pairs"]
        assert pairs["n"] == n and len(unpack(pairs["codes"])) == n * (n - 1) // 2
    large = in_full(make_trace("libra", grid=(33, 33), n_layers=6))
    (shown,) = inspector.view({"it": large})["traces"]
    assert [d["pairs"] is None for d in shown["decisions"]] == [False, True, True]
    (bare,) = inspector.view({"it": libra})["traces"]
    assert all(decision["pairs"] is None for decision in bare["decisions"])


@pytest.mark.parametrize("method", ["turbo", "random", "vanilla", "divprune"])
def test_other_decisions_cannot_be_taken_again(method):
    trace, _ = decide(method)
    assert what_if(trace, trace.events[0], ()) == {}


def test_the_earlier_compensation_token_is_not_counted(libra):
    can = what_if(libra, libra.events[1], libra.events[0].reduction.extras)
    kept = libra.events[0].reduction.n_out - 1
    assert can["keep"]["of"] == kept and can["keep"]["kept"] == kept // 2


@pytest.mark.parametrize("method", ["fastv", "libra"])
def test_a_tour_shows_what_it_says(method):
    trace = make_trace(method, layers=(1, 3, 5) if method == "libra" else (1,))
    steps = tour(trace)
    assert 5 <= len(steps) <= 8
    for step in steps:
        assert step["overlay"] in OVERLAYS and 0 <= step["stage"] <= len(trace.events)
        assert step["patch"] is None or 0 <= step["patch"] < len(trace.layout)
    first = trace.events[0].reduction
    importance, fate = first.evidence["importance"], first.fate()
    if method == "fastv":
        best, edge, worst = (step["patch"] for step in steps if step["patch"] is not None)
        kept = importance[fate == Fate.KEPT]
        assert best == importance.argmax() and worst == importance.argmin()
        assert fate[edge] == Fate.KEPT and importance[edge] == kept.min()
        assert f"the {len(kept)} most attended" in steps[3]["text"]
    else:
        merged, root, lost, survivor = (s["patch"] for s in steps if s["patch"] is not None)
        assert fate[merged] == Fate.MERGED and first.slot[first.group()[merged]] == root
        assert fate[lost] == Fate.COMPENSATED
        assert trace.lineage(3).fate()[survivor] == Fate.KEPT


@pytest.mark.parametrize("method", methods.names())
def test_every_method_has_a_tour_that_can_be_shown(method):
    trace = make_trace(method, **SMALL)
    steps = tour(trace)
    assert 5 <= len(steps) <= 8
    for step in steps:
        assert step["overlay"] in OVERLAYS and 0 <= step["stage"] <= len(trace.events)
        assert step["patch"] is None or 0 <= step["patch"] < len(trace.layout)
        assert len(step["text"]) > 60, "a step is a sentence or two"
        assert "{" not in step["text"]
        assert step["look"] in (None, *LOOKS)
    told = " ".join(step["text"] for step in steps)
    assert method not in STORIES or STORIES[method].lesson in told


@pytest.mark.parametrize("tracing", [True, "full"])
@pytest.mark.parametrize("method", methods.names())
def test_an_answer_of_every_method_can_be_inspected(lvlm, method, tracing):
    """A real one: methods may act at several sites, which drawn traces do not."""
    request = {"images": [make_image()], "question": QUESTION, "max_new_tokens": 3}
    trace = lvlm.answer(**request, method=method, tracing=tracing).trace
    (shown,) = inspector.view({"it": trace})["traces"]
    assert len(shown["stages"]) == len(trace.events) + 1
    assert len(shown["decisions"]) == max(1, len(trace.events))


def test_a_tour_ends_with_what_became_of_the_answer():
    trace, vanilla = make_trace("fastv", **SMALL), make_trace("vanilla", **SMALL)
    same, other = replace(vanilla, answer=trace.answer), replace(vanilla, answer="three")
    alone, kept, lost = tour(trace), tour(trace, same), tour(trace, other)
    assert alone[:-1] == kept[:-1] == lost[:-1]
    assert kept[-1]["text"].startswith(f"The answer is “{trace.answer}”, as it is without")
    assert f"it is “{trace.answer}”, and “three” without." in lost[-1]["text"]
    assert alone[-1]["text"] in lost[-1]["text"]
    assert tour(vanilla, other) == tour(vanilla)
    shown = inspector.view({"FastV": trace, "Vanilla": other})["traces"]
    assert shown[0]["tour"] == lost
    asked_otherwise = (
        replace(other, question="What else?"),
        replace(other, history=[("What?", "three")]),
        replace(other, images=[255 - pixels for pixels in other.images]),
        replace(other, events=trace.events),  # asked again without some patches
    )
    for another in asked_otherwise:
        assert inspector.view({"FastV": trace, "V": another})["traces"][0]["tour"] == alone
        several = {"V": other, "FastV": trace, "Another": another}
        assert inspector.view(several)["traces"][1]["tour"] == lost


@pytest.mark.parametrize("method", methods.names())
def test_a_step_that_speaks_of_a_view_brings_it_up(method):
    words = {
        "strip": "strip",
        "importance": "the histogram is",
        "similarity": "similarity histogram",
        "card": "the card ",
        "play": "Play, above the picture",
        "answer": "Choose a word of the answer",
        "layer": "Move the layer",
        "whatif": "under What if",
    }
    assert words.keys() == set(LOOKS)
    for step in tour(make_trace(method, **SMALL)):
        spoken = {look for look, name in words.items() if name.lower() in step["text"].lower()}
        assert step["look"] in (spoken or {None}), step["text"]


def test_the_views_know_all_that_a_step_can_speak_of():
    names = re.search(r"const SPOKEN_OF = \{(.*?)\};", (STATIC / "views.js").read_text(), re.S)[1]
    assert tuple(re.findall(r"(\w+):", names)) == LOOKS


def test_blind_agreement_is_that_of_all_choices():
    n = 6
    for a, b in product(range(n + 1), repeat=2):
        pairs = [*product(combinations(range(n), a), combinations(range(n), b))]
        shared = [len({*one} & {*other}) for one, other in pairs]
        mean = sum(shared) / len(shared)
        chance, most = blind_agreement(a, b, n)
        assert chance == pytest.approx(mean / (a + b - mean) if a + b else 0)
        assert most == max(s / max(1, a + b - s) for s in shared)


def test_the_tours_have_a_story_for_every_method():
    assert set(methods.names()) - set(STORIES) - set(WRITTEN) == {"vanilla"}, (
        "tell its story in viz/inspector/tours/stories.py"
    )
    assert set(STORIES) | set(WRITTEN) <= set(methods.names())


@pytest.mark.parametrize("method", ["turbo", "evit", "random"])
def test_a_told_tour_shows_patches_of_which_it_speaks(method):
    trace = make_trace(method, layers=(1,), **SMALL)
    first = trace.events[0].reduction
    fate, group = first.fate(), first.group()
    by_text = {step["text"]: step for step in tour(trace)}
    kinds = (("This patch is gone", Fate.DROPPED), ("This patch went into", Fate.COMPENSATED))
    shown = 0
    for text, step in by_text.items():
        for start, kind in kinds:
            if text.startswith(start):
                assert fate[step["patch"]] == kind
                shown += 1
        if said := re.match(r"This token now stands for (\d+) patches", text):
            assert int(said[1]) == int((group == group[step["patch"]]).sum()) > 1
            shown += 1
        if said := re.search(r", (\d+) of 64 tokens stay", text):
            assert int(said[1]) == int((fate == Fate.KEPT).sum())
            shown += 1
    assert shown == 2


def test_there_is_no_tour_where_nothing_happened_or_nothing_is_known(libra):
    assert tour(make_trace("fastv", ratio=0.0, layers=(1,), **SMALL)) == []
    assert tour(replace(libra, importance=[], attention=[])) == []


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A file as a teacher would make it: a full-size answer beside the plain model's."""
    path = tmp_path_factory.mktemp("export") / "answer.html"
    words = "a woman in a dark uniform with four rows of ribbons stands before a flag and looks on"
    trace = in_full(make_trace("libra", layers=(7, 15, 23), n_layers=32, answer=words))
    plain = make_trace("vanilla", n_layers=32, answer=words)
    trace = replace(trace, question="</script><b>Who?</b>")
    inspector.export_html(trace, plain, path=path)
    return path


def test_a_file_is_small_and_names_no_other_place(exported):
    text = exported.read_text("utf-8")
    assert exported.stat().st_size < 3 * 2**20
    assert not re.search(r"""(src|href|url)\s*[=(]\s*["']?(https?:)?//""", text)
    assert "default-src 'none'" in text and "import(" not in text and "fetch(" not in text


def test_a_file_survives_any_question(exported):
    text = exported.read_text("utf-8")
    assert "<title>&lt;/script&gt;&lt;b&gt;Who?&lt;/b&gt;</title>" in text
    body = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    data = json.loads(body[1])
    assert data["traces"][0]["question"] == "</script><b>Who?</b>"
    assert [t["name"] for t in data["traces"]] == ["Libra-Merging", "Vanilla (no compression)"]


def test_answers_of_one_method_get_names_of_their_own(libra):
    data = re.search(r'id="data">(.*?)</script>', document({"x": libra}), re.S)[1]
    assert json.loads(data)["ask"] is False
    names = list(inspector.export._named([libra, libra, libra]))
    assert names == ["Libra-Merging", "Libra-Merging · 2", "Libra-Merging · 3"]


def test_the_page_can_take_the_parts():
    parts = inspector.component()
    for component, name in product(
        (parts, inspector.pane_component("#hero img")), ("html_template", "css_template")
    ):
        # Gradio evaluates both as Handlebars and as a JavaScript template.
        assert not re.search(r"`|\$\{|\{\{|\\", component[name])
    # Gradio makes a listener of every event that the script names in quotes.
    for event in ("again", "save", "select"):
        assert re.search(rf"""["']{event}["']""", parts["js_on_load"])


def test_every_module_is_part_of_the_script():
    modules = {path.name for path in STATIC.glob("*.js")}
    assert modules == set(inspector.export.SCRIPTS) | {"pane.js"} == modules | set(SCRIPTS)


@pytest.mark.parametrize(
    "trace",
    [
        make_trace("libra", grid=(1, 1), n_layers=6),
        make_trace("fastv", layers=(1,), pictures=[photo(200, 90), photo(90, 200)], grid=(4, 4)),
        replace(make_trace("vanilla", **SMALL), answer="", words=[], attention=[]),
    ],
    ids=["one token", "two pictures", "no words"],
)
def test_odd_answers_can_be_shown(trace):
    assert json.loads(json.dumps(inspector.view({"it": trace})))["traces"][0]["n"] == len(
        trace.layout
    )


def test_words_are_stored_with_their_rivals(libra):
    words = [Word(" näh", 0.5, [(" näh", 0.5), ("\n", 0.25)])]
    (shown,) = inspector.view({"it": replace(libra, words=words, attention=libra.attention[:1])})[
        "traces"
    ]
    assert json.loads(json.dumps(shown["words"])) == [
        {"text": " näh", "probability": 0.5, "top": [[" näh", 0.5], ["\n", 0.25]]}
    ]


def test_an_animation_starts_with_all_tokens_and_ends_with_the_last(tmp_path):
    bright = np.random.default_rng(0).integers(0, 60, (336, 336, 3), np.uint8)
    trace = make_trace("fastv", layers=(1,), pictures=[bright], grid=(12, 12))
    path = tmp_path / "flow.gif"
    inspector.save_animation(trace, path)
    with Image.open(path) as film:
        assert film.n_frames > 10
        first = np.asarray(film.convert("L"), float)
        film.seek(film.n_frames - 1)
        last = np.asarray(film.convert("L"), float)
    side = first.shape[0] // 12
    kept = trace.lineage(1).fate() == Fate.KEPT
    for patch in range(144):
        row, column = divmod(patch, 12)
        tile = np.s_[row * side : (row + 1) * side, column * side : (column + 1) * side]
        assert first[tile].mean() < 80
        assert (last[tile].mean() < 80) == bool(kept[patch])


def test_animations_of_merging_have_a_place_for_the_compensation_token(libra, tmp_path):
    inspector.save_animation(libra, tmp_path / "flow.webp")
    with Image.open(tmp_path / "flow.webp") as film:
        assert film.n_frames > 3 * 10


def test_what_cannot_be_animated_says_so(libra, vanilla, tmp_path):
    with pytest.raises(InputError, match="gif or webp"):
        inspector.save_animation(libra, tmp_path / "flow.mp4")
    with pytest.raises(InputError, match="nothing to animate"):
        inspector.save_animation(vanilla, tmp_path / "flow.gif")
    with pytest.raises(InputError, match="Picture 3"):
        inspector.save_animation(libra, tmp_path / "flow.gif", image=3)


@pytest.mark.parametrize(
    ("method", "name"), [("libra", "compensation token"), ("prumerge", "extra token")]
)
def test_a_token_that_sums_up_others_has_its_own_name(method, name):
    trace = make_trace(method, **SMALL)
    assert inspector.view({"one": trace})["traces"][0]["extra"] == name


def test_a_pane_knows_the_patches_and_no_pixels(libra):
    known = inspector.pane(libra)
    whole = inspector.view({"one": libra})["traces"][0]
    [of_trace] = known["traces"]
    assert {name: whole[name] for name in of_trace if name != "decisions"} == {
        name: part for name, part in of_trace.items() if name != "decisions"
    }
    assert len(json.dumps(known)) < 0.5 * len(json.dumps(inspector.view({"one": libra})))
    assert "createInspector" not in inspector.pane_component("#hero img")["js_on_load"]
