"""What is read of a model's folder: no code, every weight, every part, in any family."""

import io
import json
import shutil
import sys

import conftest
import micro_llava
import micro_qwen
import micro_videollama
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlavaNextProcessor, LlavaProcessor

import libra
from libra import InputError


def save_llava(folder):
    """LLaVA-1.5 in half precision and several files."""
    model = conftest.make_model(dtype=torch.float16)
    model.save_pretrained(folder, max_shard_size="100KB")
    conftest.make_tokenizer().save_pretrained(folder)
    conftest.make_image_processor().save_pretrained(folder)


SAVE = {
    "llava": save_llava,
    **{name: lambda f, n=name: micro_llava.save(n, f) for name in micro_llava.FAMILIES},
    **{name: lambda f, n=name: micro_qwen.save(n, f) for name in micro_qwen.FAMILIES},
    "videollama3": micro_videollama.save_3,
}  # of VideoLLaMA 2: tests/test_family_videollama2.py


@pytest.fixture(scope="module", params=SAVE)
def family_folder(request, tmp_path_factory):
    """A folder of each family, in several files."""
    folder = tmp_path_factory.mktemp(f"of-{request.param}")
    SAVE[request.param](folder)
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    libra.load(folder).close()
    return folder


@pytest.fixture
def code(tmp_path, monkeypatch):
    """A folder with code that leaves a file behind, somebody who says yes, and that file."""
    ran = tmp_path / "ran"
    for name in ("configuration_x", "modeling_x", "tokenization_x"):
        (tmp_path / f"{name}.py").write_text(f"open({str(ran)!r}, 'w').close()\n\nclass X: pass\n")
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 9))
    return tmp_path, ran


def edit(file, **changes):
    """Change values of a JSON file."""
    own = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(own | changes))


# ---- code ----


@pytest.mark.parametrize("kind", ["nosuch", "bert"])
def test_a_model_of_no_supported_type_says_which_are(tmp_path, kind):
    edit(tmp_path / "config.json", model_type=kind)
    with pytest.raises(InputError, match=f"is a {kind} model; supported are: llava, llava_next"):
        libra.load(tmp_path)


def test_the_code_of_a_configuration_is_not_run(code):
    folder, ran = code
    auto_map = {"AutoConfig": "configuration_x.X", "AutoModel": "modeling_x.X"}
    edit(folder / "config.json", model_type="custom", auto_map=auto_map)
    with pytest.raises(InputError, match="is a custom model; supported are: llava"):
        libra.load(folder)
    assert not ran.exists()


def test_the_code_of_a_part_of_a_model_is_not_run(code, model_folder):
    """Of a tower that transformers has a configuration of, but no model."""
    folder, ran = code
    shutil.copytree(model_folder, folder, dirs_exist_ok=True)
    place = {"AutoModel": f"{folder}--modeling_x.X"}
    tower = {"model_type": "align_text_model", "auto_map": place}
    edit(folder / "config.json", vision_config=tower)
    with pytest.raises(InputError, match="could not be loaded"):
        libra.load(folder)
    assert not ran.exists()


@pytest.mark.parametrize("own", [{}, {"tokenizer_class": "XTokenizer"}])
def test_the_code_of_a_tokenizer_is_not_run(code, model_folder, own):
    folder, ran = code
    shutil.copytree(model_folder, folder, dirs_exist_ok=True)
    auto_map = {"AutoTokenizer": [None, "tokenization_x.X"]}
    edit(folder / "tokenizer_config.json", auto_map=auto_map, **own)
    libra.load(folder).close()
    assert not ran.exists()


def test_the_code_of_a_tower_elsewhere_is_not_run(code, tmp_path_factory):
    tower, ran = code
    folder = micro_videollama.save("mistral", tmp_path_factory.mktemp("videollama2"))
    edit(tower / "config.json", model_type="custom", auto_map={"AutoConfig": "configuration_x.X"})
    edit(folder / "config.json", mm_vision_tower=str(tower))
    with pytest.raises(InputError, match=f"over {tower} is not supported"):
        libra.load(folder)
    assert not ran.exists()


def test_a_part_of_an_unknown_type_is_one_clear_line(model_folder, tmp_path):
    folder = shutil.copytree(model_folder, tmp_path / "odd")
    edit(folder / "config.json", vision_config={"model_type": "nosuch"})
    with pytest.raises(InputError, match="holds no model that can be read"):
        libra.load(folder)


# ---- parts ----


def test_a_lost_weight_is_not_made_up(family_folder, tmp_path):
    folder = shutil.copytree(family_folder, tmp_path / "damaged")
    shard = max(folder.glob("model-*.safetensors"))
    weights = load_file(shard)
    lost = max(weights)
    weights.pop(lost)
    save_file(weights, shard, metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"could not be loaded: it lacks 1 weights, for example"):
        libra.load(folder)


def test_a_head_that_is_tied_to_the_embedding_is_not_lost(tmp_path):
    model = conftest.make_model(dtype=torch.float16)
    model.config.tie_word_embeddings = True
    model.tie_weights()
    model.save_pretrained(tmp_path)
    conftest.make_tokenizer().save_pretrained(tmp_path)
    conftest.make_image_processor().save_pretrained(tmp_path)
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")
    with libra.load(tmp_path) as lvlm:
        model = lvlm.family.model
        assert model.lm_head.weight is model.get_input_embeddings().weight


@pytest.mark.parametrize(
    ("file", "part"),
    [
        ("preprocessor_config.json", r"image processor \(preprocessor_config.json\)"),
        ("tokenizer.json", r"tokenizer \(tokenizer.json\)"),
    ],
)
def test_a_folder_without_a_part_names_it_and_not_its_place(family_folder, tmp_path, file, part):
    folder = shutil.copytree(family_folder, tmp_path / "partial")
    (folder / file).unlink()
    with pytest.raises(InputError, match=f"could not be loaded: it has no {part}") as error:
        libra.load(folder)
    said = str(error.value).removeprefix(str(folder))
    assert str(folder) not in said and "huggingface.co" not in said and "\n" not in said


def test_a_tower_without_a_processor_says_whose_is_missing(tmp_path):
    folder = micro_videollama.save("qwen2", tmp_path)
    (folder / "tower" / "preprocessor_config.json").unlink()
    with pytest.raises(InputError, match=r"its vision tower has no image processor \(preproc"):
        libra.load(folder)


WHOLE = {
    "llava": lambda: (
        LlavaProcessor,
        conftest.make_model(),
        conftest.make_tokenizer(),
        conftest.make_image_processor(),
    ),
    "llava-next": lambda: (
        LlavaNextProcessor,
        micro_llava.model_of("llava-next"),
        micro_llava.tokenizer_of("llava-next"),
        *micro_llava.processors_of("llava-next"),
    ),
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_folder_that_a_whole_processor_has_written(name, tmp_path):
    """Newer than `preprocessor_config.json`: all parts in one file, the template in another."""
    kind, model, tokenizer, stills = WHOLE[name]()
    model.half().save_pretrained(tmp_path)
    kind(
        stills,
        tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=tokenizer.chat_template,
    ).save_pretrained(tmp_path)
    assert (tmp_path / "chat_template.jinja").exists()
    assert "image_processor" in json.loads((tmp_path / "processor_config.json").read_text())
    assert not (tmp_path / "preprocessor_config.json").exists()
    with libra.load(tmp_path) as lvlm:
        request = {"images": [conftest.make_image()], "question": conftest.QUESTION}
        assert lvlm.answer(**request, max_new_tokens=3).trace.words
        assert lvlm.family.image_processor.to_dict() == stills.to_dict()
