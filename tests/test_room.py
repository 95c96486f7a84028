"""Whether a model fits, where it goes, and what is said when it cannot be had."""

import weakref
from types import SimpleNamespace

import pytest
import torch
from conftest import make_model

import libra
from libra import InputError, models
from libra.models import room
from page.shelf import Shelf


def gpus(monkeypatch, *sizes, accelerate=True):
    """Pretend that there are GPUs of these sizes in bytes; returns what is free of each."""
    free = list(sizes)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(sizes))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(sizes))
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda i: SimpleNamespace(total_memory=sizes[i])
    )
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda i: (free[i], sizes[i]))
    monkeypatch.setattr(room, "is_accelerate_available", lambda: accelerate)
    return free


@pytest.mark.parametrize(
    ("sizes", "needed", "device"),
    [
        ((), 1e9, "cpu"),
        ((24e9,), 17e9, "cuda"),
        ((24e9,), None, "cuda"),
        ((24e9, 24e9), 17e9, "cuda:0"),
        ((12e9, 24e9), 17e9, "cuda:1"),
        ((24e9, 24e9), 32e9, "auto"),
        ((24e9, 24e9), None, "auto"),
    ],
)
def test_a_model_goes_to_one_gpu_or_to_all_if_one_may_be_too_small(
    monkeypatch, sizes, needed, device
):
    gpus(monkeypatch, *sizes)
    assert room.best_device(needed) == device


def test_models_that_fit_one_gpu_each_do_not_share_one(monkeypatch, model_folder, tmp_path):
    free, weights = gpus(monkeypatch, 24e9, 24e9), 14e9

    def load(path, device, *how):
        free[int(device.removeprefix("cuda:"))] -= weights

    monkeypatch.setattr(models, "_device", lambda name: name)
    monkeypatch.setattr(room, "on_disk", lambda folder: weights)
    monkeypatch.setattr(models.Llava, "load", load)
    shelf = Shelf(models.open_model, models.memory_needed, lambda: room.capacity()[0])
    for name in ("a", "b"):
        (tmp_path / name).symlink_to(model_folder)
        with shelf.use(str(tmp_path / name)):
            pass
    assert free == [10e9, 10e9] and str(tmp_path / "a") in shelf


def test_what_fits_no_gpu_any_more_is_spread_over_what_is_left(monkeypatch):
    free = gpus(monkeypatch, 24e9, 24e9)
    free[:] = 10e9, 10e9
    assert room.best_device(12e9) == "auto"


def test_without_accelerate_one_gpu_is_all_there_is(monkeypatch):
    gpus(monkeypatch, 12e9, 24e9, accelerate=False)
    assert room.best_device(32e9) == "cuda:1"
    assert room.lack(32e9) == (
        "needs 32 GB of memory on one GPU (`make gpu` adds what spreads a model over several), "
        "this machine has 24 GB"
    )


def test_the_catalogue_counts_all_gpus(monkeypatch):
    gpus(monkeypatch, 24e9)
    assert models.entry("llava-1.5-7b").runnable
    assert (
        models.entry("llava-1.5-13b").reason == "needs 32 GB of GPU memory, this machine has 24 GB"
    )
    gpus(monkeypatch, 24e9, 24e9)
    assert models.entry("llava-1.5-13b").runnable


def test_what_a_folder_needs_is_its_weights_in_the_precision_of_the_device(model_folder):
    weights = sum(p.numel() for p in make_model().parameters()) * 4  # stored in half, run in full
    assert models.memory_needed(str(model_folder)) == pytest.approx(1.2 * weights, rel=0.1)


def test_a_model_that_needs_more_than_there_is_is_refused_before_it_is_read(
    monkeypatch, model_folder
):
    monkeypatch.setattr(room, "capacity", lambda: (1e3, "memory"))
    monkeypatch.setattr(models.Llava, "load", None)  # a call would fail
    with pytest.raises(InputError, match=r"needs 0 GB of memory.*Choose a smaller model"):
        libra.load(str(model_folder))


def test_a_device_that_is_asked_for_is_tried(monkeypatch, model_folder):
    monkeypatch.setattr(room, "capacity", lambda: (1e3, "memory"))
    with libra.load(str(model_folder), device="cpu") as lvlm:
        assert lvlm.card["device"] == "cpu"


def test_loading_for_all_gpus_lets_accelerate_spread_the_layers(monkeypatch, model_folder):
    seen = {}

    def spread(path, **options):
        seen.update(options)
        model = make_model()
        model.hf_device_map = {"model.vision_tower": 0, "model.language_model": 1}
        return model, {"missing_keys": set()}

    monkeypatch.setattr(models.Llava.model_class, "from_pretrained", spread)
    family = models.Llava.load(str(model_folder), "auto", torch.float16, "sdpa")
    assert seen["device_map"] == "auto" and family.model.hf_device_map


@pytest.mark.parametrize(
    ("asked", "device", "dtype", "installed", "used"),
    [
        (None, "cuda", torch.float16, True, "flash_attention_2"),
        (None, "auto", torch.bfloat16, True, "flash_attention_2"),
        (None, "cuda", torch.float16, False, "sdpa"),
        (None, "cuda", torch.float32, True, "sdpa"),
        (None, "cpu", torch.bfloat16, True, "sdpa"),
        ("flash_attention_2", "cuda", torch.float16, True, "flash_attention_2"),
        ("flash_attention_2", "cuda", torch.float16, False, "sdpa"),
        ("flash_attention_2", "cpu", torch.float32, True, "sdpa"),
        ("sdpa", "cuda", torch.float16, True, "sdpa"),
        ("eager", "cuda", torch.float16, True, "eager"),
    ],
)
def test_flash_attention_where_it_is_installed_and_goes(
    monkeypatch, model_folder, asked, device, dtype, installed, used
):
    seen = []
    monkeypatch.setattr(models, "_device", lambda name: name)
    monkeypatch.setattr(models, "is_flash_attn_2_available", lambda: installed)
    monkeypatch.setattr(models.Llava, "load", lambda *arguments: seen.append(arguments))
    models.open_model(str(model_folder), device, dtype, asked)
    assert seen == [(str(model_folder), device, dtype, used)]


@pytest.mark.parametrize("elsewhere", ["cpu", "disk"])
def test_layers_without_room_on_any_gpu_are_a_lack_of_memory(elsewhere):
    model = SimpleNamespace(hf_device_map={"a": 0, "b": elsewhere})
    with pytest.raises(torch.OutOfMemoryError):
        room.placed(model, "auto")
    assert room.spread("cuda") == {}


def failing(error):
    def fail(*args, **kwargs):
        raise error

    return fail


def test_a_gated_model_says_how_to_get_it(monkeypatch):
    closed = models.GatedRepoError.__new__(models.GatedRepoError)
    info = SimpleNamespace(gated="manual")
    monkeypatch.setattr(models.HfApi, "model_info", lambda *a, **k: info)
    monkeypatch.setattr(models.HfApi, "auth_check", failing(closed))
    with pytest.raises(InputError, match=r"gated.*https://huggingface.co/org/closed.*HF_TOKEN"):
        libra.load("org/closed")


def test_a_gated_model_that_is_open_to_the_token_is_loaded(monkeypatch, model_folder):
    info = SimpleNamespace(gated="auto", siblings=None)
    monkeypatch.setattr(models.HfApi, "model_info", lambda *a, **k: info)
    monkeypatch.setattr(models.HfApi, "auth_check", lambda *a: None)
    read_instead(monkeypatch, model_folder)
    assert models.memory_needed("org/closed") is None


def read_instead(monkeypatch, folder):
    """Read every configuration from a folder, as if it came from the hub."""
    real = models._config
    monkeypatch.setattr(models, "_config", lambda name, path: real(name, str(folder)))


def test_a_model_on_the_hub_is_weighed_before_it_is_fetched(monkeypatch, model_folder):
    sizes = {
        "model-00001-of-00002.safetensors": 80e9,
        "model-00002-of-00002.safetensors": 64e9,
        "consolidated.safetensors": 144e9,
        "original/model.safetensors": 144e9,
        "pytorch_model.bin": 288e9,
        "README.md": None,
    }
    siblings = [SimpleNamespace(rfilename=name, size=size) for name, size in sizes.items()]
    info, asked = SimpleNamespace(gated=False, siblings=siblings), []
    monkeypatch.setattr(models.HfApi, "model_info", lambda *a, **k: asked.append(k) or info)
    read_instead(monkeypatch, model_folder)
    monkeypatch.setattr(models.Llava, "load", None)  # a call would fail
    monkeypatch.setattr(room, "capacity", lambda: (64e9, "memory"))
    with pytest.raises(InputError, match="needs 346 GB of memory, this machine has 64 GB"):
        libra.load("org/large")  # 72e9 parameters in half, to be run in full, and headroom
    assert asked == [{"timeout": models.PATIENCE, "files_metadata": True}]


def test_without_safetensors_the_older_files_are_weighed():
    assert room.stored({"pytorch_model.bin": 3, "training_args.bin": 5, "config.json": 7}) == 3
    assert room.stored({"config.json": 7}) is None


@pytest.mark.parametrize("limit", ["1000000", "max", "9223372036854771712"])
def test_a_container_has_as_much_memory_as_it_may_use(monkeypatch, tmp_path, limit):
    file = tmp_path / "memory.max"
    monkeypatch.setattr(room, "CGROUP", [file])
    machine = room.capacity()
    file.write_text(limit + "\n")
    assert room.capacity() == ((1e6, "memory") if limit == "1000000" else machine)


def test_memory_that_runs_out_while_loading_is_free_again(monkeypatch, model_folder):
    loaded = []

    def full(self, device):
        loaded.append(weakref.ref(self))
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(models.Llava.model_class, "to", full)
    with pytest.raises(InputError, match="does not fit into the memory of cpu") as error:
        libra.load(str(model_folder))
    assert loaded[0]() is None, error  # which is still there, with all its frames


def test_a_private_model_is_missing_and_the_token_is_mentioned(monkeypatch):
    missing = models.RepositoryNotFoundError.__new__(models.RepositoryNotFoundError)
    monkeypatch.setattr(models.HfApi, "model_info", failing(missing))
    with pytest.raises(InputError, match="private model, set HF_TOKEN"):
        libra.load("org/private")
