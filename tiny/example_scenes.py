"""What the examples of the page show: scenes, albums and films; photos and a real film."""

from tiny.scenes import Thing

CREDITS = {
    "fluent-3d": "Composed of Fluent Emoji 3D, Microsoft, MIT",
    "noto": "Composed of Noto Emoji, Google, OFL 1.1",
}


def _row(name: str, places: list[tuple[float, float]], size: float, **more) -> list[Thing]:
    return [Thing(name, x, y, size, size, **more) for x, y in places]


COMPOSED = {
    "orchard": (
        "fluent-3d",
        ((232, 245, 226), (183, 222, 190)),
        _row("apple", [(0.2, 0.25)], 0.26)
        + _row("pear", [(0.72, 0.2), (0.45, 0.55), (0.83, 0.62)], 0.22)
        + _row("banana", [(0.2, 0.78)], 0.27)
        + _row("strawberry", [(0.6, 0.84)], 0.18),
        "How many pears are there?",
        "Fruit on a pale green ground: an apple, a banana, a strawberry and three pears.",
    ),
    "harbour": (
        "fluent-3d",
        ((214, 236, 250), (120, 178, 219)),
        _row("whale", [(0.24, 0.24)], 0.32)
        + _row("boat", [(0.7, 0.3)], 0.3)
        + _row("octopus", [(0.3, 0.75)], 0.26)
        + _row("crab", [(0.8, 0.8)], 0.22),
        "What is in the bottom right corner?",
        "Blue water with a whale, a boat, an octopus and, in the bottom right corner, a crab.",
    ),
    "street": (
        "noto",
        ((250, 240, 226), (206, 197, 190)),
        _row("house", [(0.22, 0.25)], 0.32)
        + _row("tree", [(0.78, 0.25)], 0.3)
        + _row("bus", [(0.28, 0.72)], 0.3)
        + _row("car", [(0.75, 0.76)], 0.26),
        "Is the car to the left or to the right of the bus?",
        "A house and a tree above, a bus and, to its right, a car below.",
    ),
    "shapes": (
        "noto",
        ((245, 243, 248), (216, 212, 228)),
        _row("ball", [(0.22, 0.25)], 0.27, colour="red")
        + _row("star", [(0.72, 0.24)], 0.3, colour="blue")
        + _row("heart", [(0.28, 0.74)], 0.27, colour="green")
        + _row("square", [(0.76, 0.74)], 0.22, colour="orange"),
        "What color is the heart?",
        "A red ball, a blue star, a green heart and an orange square on a light ground.",
    ),
    "signpost": (
        "fluent-3d",
        ((250, 244, 230), (226, 206, 172)),
        [
            Thing("sign", 0.5, 0.24, 0.34, 0.16, text="a7"),
            Thing("teddy", 0.26, 0.68, 0.33, 0.33),
            Thing("cup", 0.74, 0.7, 0.26, 0.26),
        ],
        "What does the sign say?",
        "A sign reading A7 above a teddy bear and a cup.",
    ),
    "party": (
        "fluent-3d",
        ((252, 234, 240), (236, 196, 212)),
        _row("balloon", [(0.15, 0.22), (0.4, 0.18), (0.85, 0.2)], 0.22)
        + _row("cake", [(0.5, 0.6)], 0.3)
        + _row("gift", [(0.17, 0.75), (0.83, 0.76)], 0.24),
        "How many gifts are there?",
        "Three balloons above a cake with a gift on either side.",
    ),
    "night": (
        "noto",
        ((44, 52, 92), (16, 20, 44)),
        _row("moon", [(0.2, 0.2)], 0.24)
        + _row("rocket", [(0.75, 0.26)], 0.28)
        + _row("alien", [(0.26, 0.74)], 0.26)
        + _row("robot", [(0.76, 0.75)], 0.26),
        "What is to the right of the alien?",
        "A dark sky with a moon, a rocket, an alien and a robot.",
    ),
}
PHOTOS = {
    "cat": (("chelsea.png",), "Is there a cat in the image?", "A photo of a tabby cat's face.",
            "Photo: Stefan van der Walt, CC0 1.0"),
    "coffee": (("coffee.png",), "Is there a cup in the image?",
               "A photo of a cup of coffee with a spoon on a saucer.",
               "Photo: Rachel Michetti, CC0 1.0"),
    "breakfast": (("coffee.png", "chelsea.png"), "Which image has the cat?",
                  "Two photos: a cup of coffee with a spoon, and a tabby cat's face.",
                  "Photos: Rachel Michetti and Stefan van der Walt, CC0 1.0"),
}  # fmt: skip


ALBUMS = {
    "pets": (
        "fluent-3d",
        [
            (
                ((236, 246, 228), (190, 222, 176)),
                _row("penguin", [(0.3, 0.66)], 0.32) + _row("tree", [(0.72, 0.32)], 0.32),
            ),
            (
                ((252, 240, 224), (232, 206, 178)),
                _row("cat", [(0.68, 0.64)], 0.32) + _row("chair", [(0.28, 0.34)], 0.3),
            ),
            (
                ((226, 240, 252), (176, 206, 234)),
                _row("rabbit", [(0.34, 0.34)], 0.3) + _row("house", [(0.7, 0.68)], 0.32),
            ),
        ],
        "Which image has the cat?",
        "Three pictures: a penguin and a tree, a cat and a chair, a rabbit and a house.",
    ),
}
FILMS = {
    "crossing": (
        "fluent-3d",
        ((222, 240, 252), (186, 220, 178)),
        lambda share: (
            _row("helicopter", [(0.17 + 0.66 * share, 0.25)], 0.26)
            + _row("house", [(0.3, 0.74)], 0.3)
            + _row("tree", [(0.76, 0.72)], 0.28)
        ),
        "Which way does the helicopter move?",
        "A film of a helicopter that flies to the right, above a house and a tree.",
    ),
    "arrivals": (
        "noto",
        ((250, 240, 246), (226, 208, 226)),
        lambda share: (
            _row("cake", [(0.3, 0.7)], 0.3)
            + _row("gift", [(0.72, 0.72)] * (share > 0.3), 0.26)
            + _row("balloon", [(0.5, 0.26)] * (share > 0.6), 0.28)
        ),
        "What appears last?",
        "A film of a cake, beside which a gift appears and then, above, a balloon.",
    ),
}
CLIPS = {
    "burrow": ("bigbuckbunny.mp4", "How many rabbits appear?",
               "An animated film: a large rabbit climbs out of its burrow and stretches.",
               "Film: Big Buck Bunny, Blender Foundation, CC BY 3.0"),
}  # fmt: skip
