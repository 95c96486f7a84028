"""The stages of the training, in order: each quick where learning from pixels alone is slow."""

from dataclasses import dataclass, replace

from tiny.packing import N_PATCHES
from tiny.run import Settings

PICTURES, CODES, TOWER = "pictures", "codes", "tower"  # what the later stages learn from


@dataclass(frozen=True)
class Stage:
    """One stage: what is learned, how, and from where it goes on."""

    about: str
    settings: Settings
    before: tuple[str, ...] = ()  # goes on from the mean of these; none: see `tiny.train.FIRST`
    way: str = ""  # answers about pictures, the decoder alone on patch codes, or the tower alone
    seed: int = 0  # in millions


TOGETHER = Settings(steps=0, batch=4, rate=0, asked=24, budget=352)  # of each of two processes
RETELL = Settings(
    steps=1600,
    batch=16,
    decay=0.7,
    visible=(96, 144, 224),
    whole=0,
    rate=5e-4,
    mixture=(3, 20, 3, 3, 6, 45, 3, 12, 5),
)
REREAD = Settings(
    steps=450,
    batch=8,
    decay=0.9,
    visible=(144, 320),
    whole=0.08,
    rate=4e-4,
    asked=14,
    budget=160,
    mixture=(4, 22, 4, 4, 6, 30, 4, 14, 12),
    distinct=True,
    fixed=True,
    sequences=True,
)

STAGES = {
    "symbols": Stage(
        "half the decoder learns to answer from scenes written as patch codes, without pictures",
        Settings(steps=3000, batch=12, rate=1e-3, decay=0, whole=0),
    ),
    "deeper": Stage(
        "the same with the whole decoder: a layer that adds nothing yet after each of the first",
        Settings(steps=1200, batch=12, rate=1e-3, whole=0),
    ),
    "pixels": Stage(
        "the tower learns to write those codes, from windows of pictures",
        Settings(steps=3500, batch=32, rate=1.5e-3, decay=0.3),
    ),
    "pictures": Stage(
        "the same on whole pictures", Settings(steps=900, batch=8, rate=8e-4, decay=0.6)
    ),
    "joint": Stage(
        "everything together",
        replace(
            TOGETHER,
            steps=1250,
            decay=0.6,
            visible=(192,),
            rate=6e-4,
            mixture=(6, 24, 9, 9, 12, 18, 6, 9, 7),  # more of what is still wrong by then
        ),
    ),
    "refine": Stage(
        "the same, longer, with several pictures and films",
        replace(
            TOGETHER,
            steps=2600,
            decay=0.65,
            visible=(192,),
            rate=5e-4,
            mixture=(6, 22, 7, 7, 10, 18, 8, 12, 10),
            sequences=True,
        ),
        before=("joint",),
        way=PICTURES,
        seed=4,
    ),
    "crowds": Stage(
        "the same with more of what is still hard: crowded scenes, where there is much to count",
        replace(
            TOGETHER,
            steps=800,
            decay=0.65,
            visible=(128, 192, 320, 576),
            whole=0.05,
            rate=4e-4,
            mixture=(6, 26, 6, 6, 8, 20, 6, 10, 12),
            sequences=True,
            crowds=(0, 60, 0, 0, 5, 20, 0, 0, 15),
        ),
        before=("refine",),
        way=PICTURES,
        seed=5,
    ),
    "settle": Stage(
        "scenes as they are asked about, at a rate that falls to nothing",
        replace(
            TOGETHER,
            steps=320,
            decay=0.85,
            visible=(192, 384),
            whole=0.15,
            rate=4e-4,
            mixture=(5, 38, 5, 5, 7, 16, 6, 9, 9),
            sequences=True,
        ),
        before=("crowds",),
        way=PICTURES,
        seed=6,
    ),
    "polish": Stage(
        "the same again, from the mean of the last two: it counts better than either",
        replace(
            TOGETHER,
            steps=220,
            decay=0.8,
            visible=(384,),
            whole=0.2,
            rate=4e-4,
            mixture=(4, 46, 4, 4, 6, 16, 5, 8, 7),
            sequences=True,
        ),
        before=("crowds", "settle"),
        way=PICTURES,
        seed=7,
    ),
    "retell": Stage(
        "the decoder alone again, on patch codes: to describe them in full",
        RETELL,
        before=("crowds", "settle", "polish"),
        way=CODES,
        seed=8,
    ),
    "finish": Stage(
        "everything together once more",
        replace(
            TOGETHER,
            steps=400,
            decay=0.9,
            visible=(160, 384),
            whole=0.15,
            rate=4e-4,
            asked=30,
            mixture=(5, 26, 5, 5, 7, 24, 5, 11, 12),
            distinct=True,
            sequences=True,
            crowds=(2, 20, 2, 2, 6, 36, 2, 10, 20),
        ),
        before=("retell",),
        way=PICTURES,
        seed=9,
    ),
    "sharpen": Stage(
        "tower and projector alone again: what they write of whole pictures limits the captions",
        Settings(steps=1600, batch=8, rate=4e-4, decay=0.9),
        before=("finish",),
        way=TOWER,
        seed=10,
    ),
    "reread": Stage(
        "the decoder alone, on what they now write",
        REREAD,
        before=("sharpen",),
        way=PICTURES,
        seed=11,
    ),
    "hone": Stage(
        "tower and projector once more, for longer: their errors still fell",
        Settings(steps=4200, batch=8, rate=6e-4, decay=0.9),
        before=("reread",),
        way=TOWER,
        seed=12,
    ),
    "recite": Stage("and the decoder on that", REREAD, before=("hone",), way=PICTURES, seed=13),
    "rehearse": Stage(
        "the decoder alone a last time, on patch codes: the tower now writes nearly as well",
        replace(RETELL, steps=650, decay=0.9, visible=(112, 176, 320), whole=0.08),
        before=("reread", "hone", "recite"),
        way=CODES,
        seed=14,
    ),
    "master": Stage(
        "everything together, with 192 pictures at each step: work for a GPU",
        Settings(
            steps=754,
            batch=192,
            rate=8e-4,
            decay=0.9,
            visible=(192, 320, N_PATCHES),
            whole=0,
            asked=24,
            mixture=(5, 20, 5, 5, 7, 14, 5, 11, 28),
            distinct=True,
            sequences=True,
            crowds=(2, 22, 2, 2, 6, 24, 2, 10, 30),
        ),
        before=("hone", "recite", "rehearse"),
        way=PICTURES,
        seed=15,
    ),
}
PUBLISHED = ("master",)  # the stages whose mean is exported
