"""Shared fixtures: a micro LLaVA with random weights, in memory and as a folder on disk."""

import os
import shutil
import tempfile
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerFast,
)

from libra import video
from libra.lvlm import LVLM
from libra.models.llava import Llava
from tiny import objects, scenes, sprites

IMAGE_SIZE, PATCH = 56, 14  # 16 visual tokens
N_VISUAL = (IMAGE_SIZE // PATCH) ** 2
N_LAYERS = 8
N_ENCODER_LAYERS = 5
WORDS = "is there a cat dog in the image ? what how many left right yes no one two of".split()


def ranks_by_cls(method):
    """Whether a method says that it ranks patches by the attention of a CLS token alone."""
    before = set(method.sites()) & {"encoder", "connector"}
    return bool(before and "importance" in method.needs and method.encoder_score == "cls")


CHROMIUM = shutil.which("chromium")
NO_CHROMIUM = "no Chromium found: install it with `apt-get install -y chromium`"
PATIENCE = 60_000  # milliseconds that a browser waits; machines that test are often busy


def pytest_configure() -> None:
    """Where the browser tests must run (`LIBRA_REQUIRE_BROWSER`), stop if they cannot."""
    if os.environ.get("LIBRA_REQUIRE_BROWSER") and CHROMIUM is None:
        raise pytest.UsageError(NO_CHROMIUM)


SPECIAL = ["<pad>", "<s>", "</s>", "<unk>", "<image>", "<user>", "<assistant>"]
QUESTION = "is there a cat in the image ?"
TEMPLATE = (
    "<s>{% for message in messages %}<user>{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)


def make_tokenizer() -> PreTrainedTokenizerFast:
    """A word-level tokenizer with LLaVA's special tokens."""
    vocabulary = {token: i for i, token in enumerate([*SPECIAL, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        extra_special_tokens=["<image>", "<user>", "<assistant>"],
        chat_template=TEMPLATE,
    )


def make_image_processor() -> CLIPImageProcessorPil:
    """CLIP's own, for the micro tower."""
    return CLIPImageProcessorPil(
        size={"shortest_edge": IMAGE_SIZE}, crop_size={"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    )


def make_model(
    attention: str = "sdpa", dtype: torch.dtype = torch.float64, seed: int = 0
) -> LlavaForConditionalGeneration:
    """Random weights, large enough that attention and answers differ between tokens."""
    torch.manual_seed(seed)
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=N_ENCODER_LAYERS,
            num_attention_heads=4,
            image_size=IMAGE_SIZE,
            patch_size=PATCH,
            initializer_range=0.1,
        ),
        text_config=LlamaConfig(
            vocab_size=len(SPECIAL) + len(WORDS),
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=N_LAYERS,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=256,
            initializer_range=0.3,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        ),
        image_token_id=SPECIAL.index("<image>"),
        attn_implementation=attention,
    )
    model = LlavaForConditionalGeneration(config)
    model.generation_config.eos_token_id = 2
    return model.to(dtype).eval()


def make_lvlm(attention: str = "sdpa", dtype: torch.dtype = torch.float64) -> LVLM:
    """The micro model behind the engine."""
    family = Llava(make_model(attention, dtype), make_tokenizer(), make_image_processor())
    return LVLM("micro", family)


def make_image(seed: int = 0, width: int = 80, height: int = 60) -> Image.Image:
    """Noise with a gradient: every patch differs."""
    noise = np.random.default_rng(seed).integers(0, 200, (height, width, 3))
    gradient = np.linspace(0, 55, width)[None, :, None]
    return Image.fromarray((noise + gradient).astype(np.uint8))


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Small models are fastest on one thread, and sums do not depend on the machine."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def lvlm():
    """The micro model in float64 with SDPA."""
    with make_lvlm() as model:
        yield model


@pytest.fixture(scope="module", params=["sdpa", "eager"])
def any_lvlm(request):
    """The micro model in float64 with either attention."""
    with make_lvlm(request.param) as model:
        yield model


@pytest.fixture
def drawn(monkeypatch):
    """Discs in place of emoji pictures, which only training fetches."""
    disc = np.zeros((128, 128, 4), np.uint8)
    y, x = np.mgrid[:128, :128]
    disc[(x - 64) ** 2 + (y - 64) ** 2 < 60**2] = (200, 30, 90, 255)
    styles = {s: {name: [disc] for name in objects.EMOJI} for s in sprites.TRAINING_STYLES}
    monkeypatch.setattr(sprites, "load", lambda: styles)
    field = scenes.Image.new("RGB", (512, 512), (90, 120, 80))
    monkeypatch.setattr(sprites, "photos", lambda: [field])


@pytest.fixture
def decoder(tmp_path, monkeypatch):
    """Put a program in the decoder's place."""

    def replace(program):
        (tmp_path / "decoder.py").write_text(program)
        monkeypatch.setattr(video, "DECODER", tmp_path / "decoder.py")

    return replace


@pytest.fixture(scope="session")
def image():
    """A landscape picture."""
    return make_image()


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    """The micro model saved as the hub would have it, in half precision."""
    folder = tmp_path_factory.mktemp("micro-llava")
    make_model(dtype=torch.float16).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    make_image_processor().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def model(model_folder):
    """The micro model as the page names it."""
    return str(model_folder)


@pytest.fixture(scope="module")
def all_uploaded():
    """Pictures of the tests count as uploaded."""
    from page import media

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(media, "get_upload_folder", tempfile.gettempdir)
        yield


@pytest.fixture(scope="module")
def visit(model, tmp_path_factory):
    """The actions of a page that is not served."""
    from tests.serve_page import unserved

    return unserved(model, tmp_path_factory.mktemp("examples"))


@pytest.fixture(scope="module")
def url(model, tmp_path_factory):
    """The page on the micro model with two prepared examples."""
    from tests.serve_page import prepare_examples, serve_page

    folder = prepare_examples(tmp_path_factory.mktemp("examples"), model)
    with serve_page(model, folder) as address:
        yield address


@pytest.fixture(scope="module")
def chromium():
    """A headless Chromium; tests that need one are skipped without it.

    It is closed after each module: while it is open, an event loop runs in this thread.
    """
    if CHROMIUM is None:
        pytest.skip(NO_CHROMIUM)
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"], timeout=PATIENCE
        )
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium, url):
    """Open the page; requests to other hosts and errors of scripts fail the test."""
    contexts, strangers, errors = [], [], []

    def open_(width=1440, height=960, **options):
        context = chromium.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("request", lambda request: strangers.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(url)
        page.locator("#hero img").wait_for()
        return page

    yield open_
    for context in contexts:
        context.close()
    own = urlsplit(url).netloc
    assert not [u for u in strangers if u.startswith("http") and urlsplit(u).netloc != own]
    assert not errors


def expect(locator):
    """Playwright's, imported only where a browser is driven."""
    from playwright.sync_api import expect as playwright_expect

    return playwright_expect(locator)
