"""Several pictures and videos on the page: taking them in, asking about them, looking at each."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import pytest
from PIL import Image

from libra import video
from libra.trace import MAX_PICTURES
from page import ask, compare, comparison, engine, examples, media, scrubber, texts, views
from page.shown import Added, Result, Shown
from page.visit import Visit
from tests import clips
from tests.conftest import N_VISUAL, QUESTION, make_image

SIZES = ((80, 60), (7, 5), (30, 900))  # wildly different


pytestmark = pytest.mark.usefixtures("all_uploaded")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("media")


@pytest.fixture(scope="module")
def files(folder):
    paths = [folder / f"{i}.png" for i in range(len(SIZES))]
    for i, (path, size) in enumerate(zip(paths, SIZES, strict=True)):
        make_image(i, *size).save(path)
    return [str(path) for path in paths]


@pytest.fixture(scope="module")
def film(folder):
    return str(clips.write(folder / "clip.webm", [*map(clips.numbered, range(20))]))


@pytest.fixture
def box(visit):
    return visit.controls.media


def take(box, files, shown):
    """Add files as the page does: pictures at once, a video after those of others."""
    return box.take(files, shown) | box.watch(files, shown)


def event(index):
    return SimpleNamespace(index=index)


def values(visit, model, shown, method="fastv"):
    """What the browser sends with the Ask button."""
    c = visit.controls
    sent = {"picture": shown.picture and {"path": shown.picture}, "question": QUESTION}
    sent |= {"model": model, "method": method, "ratio": 0.5, "layers": [1, 3], "inner": []}
    return [*sent.values(), *(None for _ in c.parameters)]


def answered(visit, model, shown, **options):
    """Ask to the end; returns what the last updates are."""
    *_, last = visit.ask(shown, *values(visit, model, shown, **options))
    return last


# Taking in


def test_pictures_are_asked_about_in_the_order_in_which_they_came(visit, model, box, files):
    shown = Shown(picture=files[0])
    drawn = box.take(files[1:], shown)
    assert drawn[box.strip].visible and drawn[box.strip].value.count("<img") == 3
    assert not drawn[box.frames].visible
    _, request = visit._request(shown, values(visit, model, shown))
    assert request["images"] == files and "video" not in request


def test_the_first_added_picture_takes_an_empty_place(box, files):
    shown = Shown()
    box.take(files, shown)
    assert (shown.picture, shown.added.pictures) == (files[0], tuple(files[1:]))


@pytest.mark.parametrize(("index", "left"), [(0, (1, 2)), (1, (0, 2)), (2, (0, 1))])
def test_every_picture_can_be_taken_out(box, files, index, left):
    shown = Shown(picture=files[0], added=Added(tuple(files[1:])))
    box.drop(shown, event(index))
    assert media.pictures(shown) == [files[i] for i in left]


def test_the_last_one_leaves_no_strip(box, files):
    shown = Shown(picture=files[0], added=Added((files[1],)))
    assert not box.drop(shown, event(1))[box.strip].visible


def test_the_next_picture_takes_the_place_of_one_that_is_removed(box, files):
    shown = Shown(picture=files[0], added=Added(tuple(files[1:])))
    drawn = box.clear(shown)
    assert media.pictures(shown) == files[1:]
    assert drawn[box.picture].value["path"].endswith("1.png")


def test_a_video_stands_in_the_place_of_pictures(visit, model, box, files, film):
    shown = Shown(picture=files[0], added=Added((files[1],)))
    drawn = take(box, [film], shown)
    assert drawn[box.frames].visible and drawn[box.frames].value == 8
    assert "clip.webm · 2.0 s · 8 frames" in drawn[box.strip].value
    assert drawn[box.strip].value.count("<img") == 8 and "1.9 s" in drawn[box.strip].value
    with Image.open(shown.picture) as first:
        assert clips.number(first) == 0
    _, request = visit._request(shown, values(visit, model, shown))
    assert request["video"] is shown.added.clip and "images" not in request


@pytest.mark.parametrize(("used_to", "taken"), [(16, 16), (8, 8), (6, 4), (1, 4)])
def test_at_first_a_video_has_as_many_frames_as_the_model_is_used_to(
    box, model, film, monkeypatch, used_to, taken
):
    shape = replace(engine.shape(model), frames=used_to, most_frames=None)
    monkeypatch.setattr(engine, "shape", lambda name: shape)
    shown = Shown(model=model)
    assert take(box, [film], shown)[box.frames].value == taken
    assert len(shown.added.clip.frames) == taken


def test_other_numbers_of_frames(box, film):
    shown = Shown()
    take(box, [film], shown)
    drawn = box.sample(shown, 16)
    assert len(shown.added.clip.frames) == 16 and drawn[box.frames].value == 16
    with pytest.raises(gr.Error, match="cannot be chosen"):
        box.sample(shown, 64)
    assert len(shown.added.clip.frames) == 16


def test_a_picture_that_moves_says_that_its_first_frame_is_asked_about(
    visit, tmp_path, monkeypatch, all_uploaded
):
    still, moving, said = tmp_path / "still.gif", tmp_path / "moving.gif", []
    frames = [make_image(i) for i in range(3)]
    frames[0].save(still)
    frames[0].save(moving, save_all=True, append_images=frames[1:])
    monkeypatch.setattr(gr, "Info", said.append)
    for path, told in ((still, []), (moving, [texts.MOVES])):
        visit.check_picture({"path": str(path)}, Shown())
        assert said == told


@pytest.mark.parametrize("form", ["png", "webp"])
def test_a_picture_that_can_only_stand_still_says_so(visit, box, tmp_path, monkeypatch, form):
    moving, said = str(tmp_path / f"moving.{form}"), []
    frames = [make_image(i) for i in range(3)]
    frames[0].save(moving, save_all=True, append_images=frames[1:])
    monkeypatch.setattr(gr, "Info", said.append)
    visit.check_picture({"path": moving}, Shown())
    take(box, [moving], Shown())
    assert said == [texts.STANDS] * 2


def test_a_video_that_was_cut_off_says_so(box, film, tmp_path, monkeypatch):
    cut, said = tmp_path / "<b>.webm", []
    cut.write_bytes(Path(film).read_bytes())
    monkeypatch.setattr(gr, "Warning", said.append)
    take(box, [film], Shown())
    assert said == []
    take(box, [str(clips.cut(cut, 0.6))], shown := Shown())
    assert shown.added.clip.cut and len(said) == 1
    assert said[0].startswith("&lt;b&gt;.webm is cut off, and what is left ends at")


@pytest.mark.parametrize("action", ["drop", "clear"])
def test_a_video_can_be_removed(box, film, action):
    shown = Shown()
    take(box, [film], shown)
    box.drop(shown, event(0)) if action == "drop" else box.clear(shown)
    assert (shown.picture, shown.added) == (None, Added())


def test_a_picture_takes_the_place_of_a_video(visit, box, files, film):
    shown = Shown()
    take(box, [film], shown)
    visit.check_picture({"path": files[1]}, shown)
    assert (shown.picture, shown.added) == (files[1], Added())
    take(box, [film], shown)
    box.take([files[0]], shown)
    assert (shown.picture, shown.added) == (files[0], Added())


def test_a_moving_gif_is_a_video_and_a_still_one_a_picture(box, folder):
    moves, still = folder / "moves.gif", folder / "still.gif"
    clips.write_gif(moves, [clips.numbered(i) for i in range(3)], [100] * 3)
    make_image().save(still)
    shown = Shown()
    take(box, [str(moves)], shown)
    assert len(shown.added.clip.frames) == 3
    box.take([str(still)], shown)
    assert shown.added.clip is None and shown.picture == str(still)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (["film", "film"], "add a video alone"),
        (["film", "picture"], "add a video alone"),
        (["picture"] * 200, f"These are 201 pictures; at most {MAX_PICTURES} are possible"),
        (["picture", "broken"], "broken.png is not a picture"),
        (["text"], "text.webm is not a video that can be read"),
        (["cut"], "cut.mp4 has no video that can be read"),
        (["long"], "is 0 minutes long; at most 0 are possible"),
    ],
)
def test_what_cannot_be_used_changes_nothing(
    box, files, film, folder, monkeypatch, wanted, message
):
    broken, cut = folder / "broken.png", folder / "cut.mp4"
    broken.write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    cut.write_bytes(clips.write(folder / "whole.mp4", [clips.numbered(1)] * 5).read_bytes()[:400])
    text = folder / "text.webm"
    text.write_text("no film")
    named = {"film": film, "picture": files[1], "broken": str(broken), "cut": str(cut)}
    named["text"] = str(text)
    if wanted == ["long"]:
        monkeypatch.setattr(video, "MAX_SECONDS", 1)
    shown = Shown(picture=files[0])
    with pytest.raises(gr.Error, match=message):
        take(box, [named.get(name, film) for name in wanted], shown)
    assert (shown.picture, shown.added) == (files[0], Added())


def test_names_of_videos_are_no_markup(box, film, folder):
    evil = folder / "<img src=x onerror=alert(1)>.webm"
    evil.write_bytes(Path(film).read_bytes())
    shown = Shown()
    strip = take(box, [str(evil)], shown)[box.strip].value
    assert "<img src=x" not in strip and "&lt;img" in strip


# Asking and looking


@pytest.fixture(scope="module")
def album(visit, model, files):
    """A visitor who has asked about pictures of wildly different sizes."""
    shown = Shown(picture=files[0], added=Added(tuple(files[1:])))
    answered(visit, model, shown)
    return shown


@pytest.fixture(scope="module")
def watched(visit, model, film):
    """A visitor who has asked about a video."""
    shown = Shown()
    take(visit.controls.media, [film], shown)
    answered(visit, model, shown)
    return shown


def test_an_answer_about_several_pictures(album):
    assert [len(album.trace.images), len(album.vanilla.images)] == [3, 3]
    assert len(album.trace.layout) == 3 * N_VISUAL and album.trace.times is None
    assert set(album.asked) == {"vanilla", "fastv"}


def test_an_answer_about_a_video(watched):
    assert watched.trace.times == pytest.approx([0, 0.3, 0.5, 0.8, 1.1, 1.4, 1.6, 1.9])
    assert watched.vanilla.times == watched.trace.times


def test_too_many_frames_for_the_model_are_a_message(visit, model, film):
    shown = Shown()
    take(visit.controls.media, [film], shown)
    visit.controls.media.sample(shown, 16)
    with pytest.raises(gr.Error, match=r"The video and .* use at most 13 frames\."):
        answered(visit, model, shown)
    visit.controls.media.sample(shown, 4)
    answered(visit, model, shown)  # it goes on
    assert len(shown.trace.images) == 4


@pytest.mark.parametrize("overlay", texts.OVERLAYS)
def test_every_overlay_shows_on_every_picture(album, overlay):
    pictures = [
        views.picture(album.trace, overlay, 1, legend=False, image=i) for i in range(len(SIZES))
    ]
    assert len({picture.tobytes() for picture in pictures}) == len(SIZES)
    for picture, (width, height) in zip(pictures, SIZES, strict=True):
        assert (picture.width > picture.height) == (width > height)


def test_the_scrubber_moves_all_views_of_the_tab(visit, watched):
    tab = visit.tab
    before = tab.draw_pictures(watched)
    after = visit.pick_image(watched, 5)
    assert watched.image == 5
    for view in (tab.hero, tab.overlays, tab.caption):
        assert after[view] != before[view]
    assert "Frame 6 of 8, at 1.4 s" in after[tab.caption]
    assert tab.frames not in after  # it keeps the focus
    saved = Path(after[tab.save_picture].value["path"])
    assert "-6-" in saved.name
    whole = views.picture(*ask._at(watched), image=5)
    assert Image.open(saved).height > whole.height, "the file says which frame it is"
    watched.image = 0


@pytest.mark.parametrize("sent", [-5, 99, 3.0])
def test_the_scrubber_stays_within_the_pictures(visit, album, sent):
    visit.pick_image(album, sent)
    assert album.image in (0, 2)
    album.image = 0


def test_the_scrubber_moves_the_cards_of_a_comparison(visit, model, album):
    looks = ("groups", comparison.LAST)
    list(
        visit.compare(
            album, ["vanilla", "fastv", "libra"], compare.OWN, *looks, *values(visit, model, album)
        )
    )
    first = visit.compared(album, *looks)
    second = visit.pick_compared(album, 1, *looks)
    several = visit.several
    assert first[several.frames].visible and several.frames not in second
    for card in several.cards[:3]:
        assert first[card].value != second[card].value
    visit.pick_compared(album, 99, *looks)  # what a browser might send
    album.image = 0


def test_what_a_comparison_brings_up_while_the_tab_is_drawn_is_drawn_too(visit, album, monkeypatch):
    looks, complete, draw = ("groups", comparison.LAST), album.compared, compare.CompareTab.draw
    shown = replace(album, compared={name: Result(name) for name in complete})  # just begun
    drawings = []

    def slow(tab, *what):
        drawings.append(draw(tab, *what))
        shown.compared = complete
        return drawings[-1]

    monkeypatch.setattr(compare.CompareTab, "draw", slow)
    drawn = visit.draw_compared(shown, *looks)
    begun, last = drawings
    assert not begun[visit.several.frames].visible
    assert drawn is last and last[visit.several.frames].visible


def test_the_place_says_how_much_of_a_picture_is_kept(album):
    kept = (album.trace.lineage(2).slot // N_VISUAL).bincount(minlength=3).tolist()
    for i in range(3):
        text = scrubber.place(album.trace, i, 2)
        assert text == f"Picture {i + 1} of 3: {kept[i]} of its {N_VISUAL} patches kept."
        compared = comparison.View.of([album.trace], "groups", comparison.LAST, i).captions
        assert compared[0].endswith(f", {kept[i]} of these here")
    assert scrubber.place(album.trace, 1, 0) == "Picture 2 of 3."


def test_one_picture_needs_no_scrubber(visit, model, files):
    shown = Shown(picture=files[0])
    answered(visit, model, shown)
    assert not visit.tab.draw_pictures(shown)[visit.tab.frames].visible
    assert scrubber.place(shown.trace, 0, 0) == ""


def test_a_new_answer_about_fewer_pictures_shows_one_that_is_there(visit, model, files, album):
    shown = Shown(picture=files[0], added=Added(tuple(files[1:])))
    shown.show(album.trace)
    shown.image = 2
    shown.added = Added()
    answered(visit, model, shown)
    assert shown.image == 0


# Traces and examples


@pytest.mark.parametrize("kind", ["album", "watched"])
def test_an_opened_trace_can_be_asked_again(visit, model, kind, tmp_path, request):
    trace = request.getfixturevalue(kind).trace
    trace.save(tmp_path / "t.zip")
    shown = Shown()
    drawn = visit.open_trace(str(tmp_path / "t.zip"), shown, model)
    box = visit.controls.media
    assert drawn[box.strip].visible and not drawn[box.frames].visible
    answered(visit, model, shown)
    assert shown.trace.times == trace.times
    assert len(shown.trace.layout) == len(trace.layout)


def test_examples_of_several_pictures_and_of_videos(visit, model, files, film, folder):
    words = {"question": QUESTION, "title": "t", "alt": "a", "credit": "c"}
    entries = [
        {"image": "0.png", "more": ["1.png", "2.png"], **words},
        {"image": "1.png", "video": "clip.webm", **words},
        {"image": "1.png", "video": "gone.webm", **words},
        {"image": "1.png", "more": ["gone.png"], **words},
    ]
    (folder / "examples.json").write_text(json.dumps(entries))
    pictures, clip = examples.load(folder)
    shown = examples.first_shown([pictures])
    assert media.pictures(shown) == files
    opened = Visit(visit.controls, visit.tab, visit.several, [pictures, clip])
    drawn = opened.open_example(shown, model, event(1))
    assert len(shown.added.clip.frames) == 8 and shown.picture == files[1]
    assert drawn[visit.controls.media.frames].visible


def test_an_upload_replaces_the_album_of_an_example_but_not_ones_own(visit, files, folder):
    words = {"question": QUESTION, "title": "t", "alt": "a", "credit": "c"}
    entry = {"image": "0.png", "more": ["1.png", "2.png"], **words}
    (folder / "examples.json").write_text(json.dumps([entry]))
    (album,) = examples.load(folder)
    opened = Visit(visit.controls, visit.tab, visit.several, [album])
    shown = examples.first_shown([album])
    opened.check_picture({"path": files[1]}, shown)
    assert media.pictures(shown) == [files[1]]
    media.lay_out(shown, files[:2])
    opened.check_picture({"path": files[2]}, shown)
    assert media.pictures(shown) == [files[2], files[1]]


def test_features_of_a_video_are_computed_once_for_all_methods(model, film, monkeypatch):
    lvlm = engine.load(model)
    runs, encode = [], lvlm.family.encode
    monkeypatch.setattr(lvlm.family, "encode", lambda *a, **o: runs.append(1) or encode(*a, **o))
    clip = video.load_video(film, 2)
    requests = [
        {"video": clip, "question": QUESTION, "method": method, "max_new_tokens": 2}
        for method in ("vanilla", "fastv")
    ]
    results = {r.method: r for r in engine.compare(model, requests) if r.complete}
    assert len(results) == 2 and all(result.trace.times for result in results.values())
    assert len(runs) == 1
