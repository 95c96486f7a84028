"""The command line with several pictures and with a video."""

import json

import pytest
from conftest import N_LAYERS, N_VISUAL, QUESTION, make_image

from libra import Trace, cli
from tests import clips


@pytest.fixture
def run(capsys, model_folder):
    """Run a command on the micro model; returns (exit code, standard output, standard error)."""

    def run(command, *arguments):
        words = [command, *map(str, arguments), "--question", QUESTION]
        words += ["--model", str(model_folder), "--max-new-tokens", "2"]
        try:
            code = cli.main(words)
        except SystemExit as exit_:  # argparse
            code = exit_.code
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def pictures(tmp_path):
    """Three pictures of wildly different sizes."""
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for path, size in zip(paths, ((80, 60), (7, 5), (30, 900)), strict=True):
        make_image(0, *size).save(path)
    return paths


@pytest.fixture
def video(tmp_path):
    return clips.write(tmp_path / "clip.mp4", [*map(clips.numbered, range(20))])


def images(paths):
    return [word for path in paths for word in ("--image", path)]


def test_several_pictures(run, pictures, tmp_path):
    code, out, err = run("answer", *images(pictures), "--trace", tmp_path / "t.zip", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["tokens"][0] == 3 * N_VISUAL
    trace = Trace.load(tmp_path / "t.zip")
    assert len(trace.images) == 3 and trace.times is None
    assert trace.layout.image.bincount().tolist() == [N_VISUAL] * 3


def test_a_video(run, video, tmp_path):
    figures = ("--figures", tmp_path / "figures", "--only", "retention")
    code, out, err = run("answer", "--video", video, "--trace", tmp_path / "t.zip", *figures)
    assert (code, err) == (0, "")
    assert "frames   8, at 0.0 0.3 0.5 0.8 1.1 1.4 1.6 1.9 s" in out
    trace = Trace.load(tmp_path / "t.zip")
    assert trace.times == pytest.approx([0, 0.3, 0.5, 0.8, 1.1, 1.4, 1.6, 1.9])
    assert len(trace.layout) == 8 * N_VISUAL
    assert (tmp_path / "figures" / "retention.png").exists()


@pytest.mark.parametrize(
    ("options", "times"), [(["--frames", 2], [0, 1.9]), (["--fps", 1], [0, 1])]
)
def test_how_a_video_is_sampled(run, video, tmp_path, options, times):
    code, *_ = run("answer", "--video", video, *options, "--trace", tmp_path / "t.zip")
    assert code == 0
    assert Trace.load(tmp_path / "t.zip").times == pytest.approx(times)


def test_compare_and_sweep_take_them_too(run, pictures, video):
    code, out, _ = run("compare", *images(pictures), "--methods", "vanilla,fastv", "--json")
    assert code == 0
    assert [row["tokens"][0] for row in json.loads(out)] == [3 * N_VISUAL] * 2
    code, out, _ = run("compare", "--video", video, "--frames", 2, "--methods", "fastv", "--json")
    assert code == 0
    (row,) = json.loads(out)
    assert row["tokens"][0] == 2 * N_VISUAL and len(row["tokens"]) == N_LAYERS
    code, out, _ = run("sweep", "--video", video, "--frames", 2, "--ratios", "0.5", "--json")
    assert code == 0 and len(json.loads(out)) > 1


@pytest.mark.parametrize("command", [["answer"], ["compare", "--methods", "vanilla,fastv"]])
def test_what_is_looked_at_in_part_is_said_in_one_line(run, tmp_path, command):
    moving, film = tmp_path / "moving.webp", [*map(clips.numbered, range(20))]
    cut = clips.cut(clips.write(tmp_path / "cut.webm", film), 0.6)
    first, *rest = (make_image(i) for i in range(3))
    first.save(moving, save_all=True, append_images=rest)
    for media, said in (
        (["--image", moving], "moving.webp has more than one frame, and only the first"),
        (["--video", cut, "--frames", 2], "cut.webm is cut off, and what is left ends at"),
        (["--video", cut], "cut.webm is cut off, and what is left ends at"),
    ):
        code, _, err = run(*command, *media)
        assert code == 0, err
        assert err.startswith(f"note: {said}") and err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--frames", 4, "--image", "{picture}"], "--frames and --fps are about a video"),
        (["--fps", 1, "--image", "{picture}"], "--frames and --fps are about a video"),
        (["--video", "{video}", "--frames", 0], "must be a whole number in 1..64, not 0"),
        (["--video", "{video}", "--fps", "nan"], "must be a number above 0, not nan"),
        (["--video", "{video}", "--image", "{picture}"], "not allowed with argument"),
        ([], "one of the arguments --image --video is required"),
        (["--video", "gone.mp4"], "There is no file gone.mp4"),
        (["--video", "{picture}"], "0.png is not a video"),
        (["--image", "{video}"], "clip.mp4 is not a picture"),
        (["--image", "{picture}"] * 65, "These are 65 pictures; at most 64 are possible"),
        (["--image", "{picture}"] * 16, "use at most 15 pictures."),
    ],
)
def test_what_cannot_be_asked_is_one_line(run, pictures, video, arguments, message):
    given = [str(a).format(picture=pictures[0], video=video) for a in arguments]
    code, out, err = run("answer", *given)
    assert (code, out) == (2, "")
    assert message in err and err.count("\n") == 1
