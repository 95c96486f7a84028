"""What the embedded model knows by name: objects with their emoji, drawn shapes and colours."""

# word: emoji, the first drawn most often. Plurals are regular unless listed below.
EMOJI = {
    "dog": "🐶🐕", "cat": "🐱🐈", "mouse": "🐭", "rabbit": "🐰", "fox": "🦊", "bear": "🐻",
    "panda": "🐼", "koala": "🐨", "tiger": "🐯", "lion": "🦁", "cow": "🐮", "pig": "🐷",
    "frog": "🐸", "monkey": "🐵", "chicken": "🐔", "penguin": "🐧", "owl": "🦉", "duck": "🦆",
    "horse": "🐴", "unicorn": "🦄", "bee": "🐝", "butterfly": "🦋", "snail": "🐌",
    "ladybug": "🐞", "turtle": "🐢", "snake": "🐍", "octopus": "🐙", "crab": "🦀", "fish": "🐠",
    "dolphin": "🐬", "whale": "🐳", "shark": "🦈", "elephant": "🐘", "giraffe": "🦒",
    "apple": "🍎", "banana": "🍌", "lemon": "🍋", "watermelon": "🍉", "pear": "🍐",
    "pineapple": "🍍", "strawberry": "🍓", "kiwi": "🥝", "tomato": "🍅", "avocado": "🥑",
    "carrot": "🥕", "corn": "🌽", "broccoli": "🥦", "mushroom": "🍄", "bread": "🍞",
    "cheese": "🧀", "pizza": "🍕", "burger": "🍔", "hotdog": "🌭", "egg": "🍳", "cake": "🎂",
    "donut": "🍩", "cookie": "🍪", "car": "🚗", "bus": "🚌", "truck": "🚚", "tractor": "🚜",
    "bicycle": "🚲", "train": "🚂", "airplane": "✈", "rocket": "🚀", "helicopter": "🚁",
    "boat": "⛵", "anchor": "⚓", "tree": "🌳", "palm": "🌴", "cactus": "🌵", "sunflower": "🌻",
    "rose": "🌹", "sun": "🌞", "moon": "🌙", "cloud": "☁", "rainbow": "🌈", "snowman": "⛄",
    "fire": "🔥", "house": "🏠", "tent": "⛺", "castle": "🏰", "umbrella": "☂☔", "clock": "⏰",
    "phone": "📱", "computer": "💻", "television": "📺", "camera": "📷", "radio": "📻",
    "bulb": "💡", "book": "📕", "pencil": "✏", "key": "🔑", "lock": "🔒", "hammer": "🔨",
    "magnet": "🧲", "guitar": "🎸", "violin": "🎻", "trumpet": "🎺", "drum": "🥁", "bell": "🔔",
    "balloon": "🎈", "gift": "🎁", "crown": "👑", "hat": "🎩", "shirt": "👕", "dress": "👗",
    "shoe": "👟", "backpack": "🎒", "football": "🏈", "basketball": "🏀", "trophy": "🏆",
    "dice": "🎲", "teddy": "🧸", "robot": "🤖", "ghost": "👻", "alien": "👽", "chair": "🪑",
    "bed": "🛏", "door": "🚪", "cup": "☕", "globe": "🌍",
}  # fmt: skip
SHAPES = ("ball", "star", "heart", "square", "triangle", "diamond")
COLOURS = {
    "red": (214, 40, 40), "orange": (245, 130, 32), "yellow": (250, 215, 50),
    "green": (46, 160, 67), "blue": (45, 95, 215), "purple": (135, 60, 175),
    "pink": (245, 135, 185), "brown": (125, 75, 40), "black": (25, 25, 28),
    "white": (250, 250, 250),
}  # fmt: skip
SIGN = "sign"
CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
NAMES = (*EMOJI, *SHAPES, SIGN)

_IRREGULAR = {
    "mouse": "mice", "fish": "fishes", "butterfly": "butterflies", "strawberry": "strawberries",
    "tomato": "tomatoes", "box": "boxes", "teddy": "teddies", "trophy": "trophies",
    "dice": "dices", "corn": "corns", "bread": "breads",
}  # fmt: skip


def plural(word: str) -> str:
    """The plural that questions and captions use: `cat` -> `cats`, `bus` -> `buses`."""
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    return word + ("es" if word.endswith(("s", "x", "ch", "sh")) else "s")


def article(word: str) -> str:
    """`a` or `an`, by the sound of the first letter."""
    return "an" if word[0] in "aeio" or word == "umbrella" else "a"


def catalogue() -> list[dict]:
    """The rows of `objects.json`: word, plural and the emoji that show it (none for shapes)."""
    return [{"word": w, "plural": plural(w), "emoji": list(EMOJI.get(w, ""))} for w in NAMES]
