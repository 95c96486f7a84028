import math
from dataclasses import FrozenInstanceError, field, make_dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from libra.errors import InputError
from libra.methods import METHODS, Tokens, chosen, create, get, names, parameters
from libra.methods.base import INPUTS
from libra.methods.fastv import FastV


def test_the_plain_model_comes_first():
    assert names()[:3] == ["vanilla", "fastv", "libra"]


@pytest.mark.parametrize("name", METHODS)
def test_every_method_describes_itself(name):
    method = get(name)
    assert method.name == name
    assert method.title and method.paper
    assert method.summary.endswith(".")
    assert method.kind in {"none", "prune", "merge"}
    assert method.site in {"encoder", "connector", "decoder"}
    assert set(create(name).needs) <= set(INPUTS)
    assert method.__doc__
    own = {p.name for p in parameters(name)}
    for preset in method.presets.values():
        assert set(preset) <= own | {"layers", "encoder_layers"}
        create(name, **{k: v for k, v in preset.items() if "layers" not in k})


def test_the_readme_knows_of_the_same_conferences():
    """The README lists the papers of four methods with names in them, and where they appeared."""
    readme = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
    papers = " ".join(readme.split("## The papers")[1].split()).split("- ")
    for name in ("fastv", "libra", "turbo", "prumerge"):
        who, _, where = get(name).paper.split(";")[0].split(", section")[0].rsplit(", ", 2)
        assert any(p.startswith(who) and p.strip().endswith(f", {where}") for p in papers)


@pytest.mark.parametrize("name", METHODS)
def test_every_parameter_can_become_a_control(name):
    for parameter in parameters(name):
        assert parameter.type in (float, int, str)
        assert parameter.help
        assert (parameter.type is str) == (parameter.choices is not None)
        assert (parameter.type is str) == (parameter.range is None)
        create(name, **{parameter.name: parameter.default})
        for choice in parameter.choices or ():
            create(name, **{parameter.name: choice})
        if parameter.choices:
            with pytest.raises(InputError, match=parameter.name):
                create(name, **{parameter.name: "nonsense"})
        else:
            for bad in (math.nan, "0.5", True, parameter.range[0] - 1):
                with pytest.raises(InputError, match=parameter.name):
                    create(name, **{parameter.name: bad})


@pytest.mark.parametrize(
    ("kind", "metadata"),
    [
        (float, {}),
        (float, {"help": "how much"}),
        (float, {"range": (0.0, 1.0)}),
        (str, {"help": "which", "range": (0.0, 1.0)}),
        (bool, {"help": "whether", "choices": (False, True)}),
        ("float", {"help": "how much", "range": (0.0, 1.0)}),  # an annotation that is not evaluated
    ],
)
def test_a_parameter_that_cannot_become_a_control_says_what_it_lacks(monkeypatch, kind, metadata):
    own = field(default=None, metadata=metadata)
    method = make_dataclass("Own", [("strength", kind, own)], bases=(FastV,), frozen=True)
    monkeypatch.setitem(METHODS, "own", method)
    with pytest.raises(TypeError, match=r"own: the parameter strength, .* `help` and `range`"):
        parameters("own")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden": None}, "needs `hidden`: the hidden states"),
        ({"hidden": [[1.0, 2.0]] * 3}, r"`hidden` is a tensor \[N, C\], not list"),
        ({"hidden": torch.zeros(1, 3, 4)}, r"`hidden` is a tensor \[N, C\], not \[1, 3, 4\]"),
        ({"importance": [0.5, 0.5, 0.5]}, r"`importance` is a tensor \[N\], not list"),
        ({"importance": np.ones(3)}, r"`importance` is a tensor \[N\], not ndarray"),
        ({"importance": torch.ones(3, 2)}, r"`importance` is a tensor \[N\], not \[3, 2\]"),
        ({"keys": torch.zeros(3)}, r"`keys` is a tensor \[N, C\], not \[3\]"),
    ],
)
def test_inputs_of_another_shape_are_named(change, message):
    given = {"hidden": torch.zeros(3, 4), "importance": torch.ones(3), "keys": torch.zeros(3, 2)}
    with pytest.raises(InputError, match=f"VisionZip:? {message}"):
        create("visionzip").reduce(Tokens(**given | change))


def test_methods_are_frozen():
    with pytest.raises(FrozenInstanceError):
        create("fastv").ratio = 0.1


def test_unknown_method_lists_the_known_ones():
    with pytest.raises(InputError, match=r"no method 'fastvee'. Choose one of: vanilla, fastv"):
        create("fastvee")


def test_methods_are_chosen_by_name_or_all_at_once():
    assert chosen(["all"]) == names() and chosen(["tome", "libra", "tome"]) == ["tome", "libra"]
    for unknown in (["libra", "fastvee"], ["all", "libra"]):
        with pytest.raises(InputError, match="There is no method"):
            chosen(unknown)


def test_unknown_parameter_lists_the_known_ones():
    with pytest.raises(InputError, match="fastv has no parameter 'tau'; it has ratio, keep"):
        create("fastv", tau=0.5)
    with pytest.raises(InputError, match="vanilla has no parameter 'ratio'; it has none"):
        create("vanilla", ratio=0.5)


@pytest.mark.parametrize("keep", [0, -3, 2.5, math.inf])
def test_keep_is_a_positive_whole_number(keep):
    with pytest.raises(InputError, match="keep must be a whole number of at least 1"):
        create("fastv", keep=keep)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_numbers_are_finite(value):
    """Otherwise a trace would hold what no reader of JSON knows."""
    with pytest.raises(InputError, match="eta must be a number"):
        create("libra", eta=value)


def test_vanilla_changes_nothing():
    hidden = torch.randn(5, 3)
    assert torch.equal(create("vanilla").reduce(Tokens(hidden)).apply(hidden), hidden)


def fastv_reference(alpha, n_keep):
    ranked = sorted(range(len(alpha)), key=lambda j: (-alpha[j], j))
    return sorted(ranked[:n_keep])


@pytest.mark.parametrize("n", [1, 2, 5, 30, 577])
@pytest.mark.parametrize("ratio", [0.0, 1 / 3, 0.5, 0.9, 1.0])
def test_fastv_keeps_the_most_important(n, ratio):
    generator = torch.Generator().manual_seed(n)
    for alpha in (torch.rand(n, generator=generator), torch.ones(n), torch.arange(n) % 3 / 3):
        hidden = torch.randn(n, 4, generator=generator)
        reduction = create("fastv", ratio=ratio).reduce(Tokens(hidden, alpha))
        n_keep = max(1, round(n * (1 - ratio)))
        assert reduction.slot.tolist() == fastv_reference(alpha.tolist(), n_keep)
        assert reduction.is_selection
        assert torch.equal(reduction.apply(hidden), hidden[reduction.slot])


def test_keep_overrides_the_ratio():
    tokens = Tokens(torch.randn(9, 2), torch.arange(9.0))
    assert create("fastv", ratio=0.9, keep=4).reduce(tokens).slot.tolist() == [5, 6, 7, 8]
    assert create("fastv", keep=20).reduce(tokens).n_out == 9
