"""Every sentence the page says: labels, one-line explanations, the glossary, the lessons."""

TITLE = "Where do the visual tokens go?"
SUBTITLE = (
    "Ask a vision-language model about a picture, compress what it sees, and follow every token."
)
SHARE = "A link to what is in the controls"
SHARED = (
    "It holds example, question and settings. A picture of your own stays here: save the trace of "
    "its answer and send that file; “Open trace” shows it again, without a model."
)
NOTHING_TO_SAVE = "There is no answer yet: ask something first."
STORED = "A stored answer."
FROM_LINK = "Press Ask for what the link says."
LONG_LINK = "This question is too long for a link: {} characters are the most."
BAD_LINK = "This link names something that this page does not have. Choose on the page instead."
HELP = {
    "Ask": "Choose an example or drop a picture, type a question, choose a method, press Ask.",
    "The picture": "Point at a patch to see where it went, and why; click or tap to follow it. "
    "The stage moves all pictures; a word of the answer shows where the model looked for it.",
    "Compare": "Several methods on the same picture, side by side. Point at a patch: all pictures "
    "show where it went.",
    "Inspect": "Every patch through the layers, a quiz, what-if, and asking again without patches.",
    "Figures, Efficiency": "The papers' figures of this answer, and what it cost and saved.",
    "Learn": "Guided tours, and what the terms mean.",
    "Keys": "Enter asks. Arrow keys go from tab to tab and along choices. In Inspect they go from "
    "patch to patch; Enter holds, Escape frees, Space selects, comma and full stop change the "
    "stage.",
    "Your data": "Nothing leaves this page for another host; uploads are deleted after a day.",
}
JUMP = "Ask your own question"  # a link on phones, where the controls come last

# Terms with a one-line explanation: shown at the numbers, and together as the glossary.
TERMS = {
    "Visual tokens": "The patches of the picture after the vision encoder: vectors that the "
    "language model reads like words.",
    "Compression": "Going on with fewer visual tokens: some are dropped, or merged into others.",
    "Whole answer": "From the picture to the last word: encoder, connector, prefill and decoding.",
    "Ratio": "The share of the visual tokens that one compression step removes.",
    "Compression layer": "The decoder layer after which tokens are removed. Earlier layers still "
    "work on all of them.",
    "Importance": "How much attention the last token of the prompt, the one that starts the "
    "answer, pays to each visual token at a layer.",
    "Target token": "A visual token that stays and takes in similar ones.",
    "Compensation token": "One extra token of Libra-Merging that sums up what resembles no target.",
    "Prefill": "Reading picture and question before the first word. Most of the work on visual "
    "tokens happens here.",
    "FLOPs": "Arithmetic operations that the decoder spends on the visual tokens during prefill, "
    "by the papers' formula.",
    "KV cache": "The memory of the visual tokens: their keys and values in every layer, kept until "
    "the answer ends.",
    "Whole KV cache": "The memory of all tokens that were read, those of the question among them.",
    "All FLOPs": "Arithmetic operations of encoder, connector and prefill, those on the words of "
    "the question among them.",
    "First word": "From the picture to the first word: encoder, connector and prefill.",
    "Each further word": "One step of decoding, which reads all weights and the whole KV cache.",
    "Activations": "The most memory that intermediate results take at once during the prefill, "
    "beside weights and the whole KV cache.",
    "Roofline": "What a device can reach at best: limited by its arithmetic, or, where little is "
    "computed per byte, by its memory.",
    "IoU": "Intersection over union: of the patches that either of two methods keeps, the share "
    "that both keep.",
    "Vanilla": "The same model without compression; all numbers are held against it.",
}

# Overlay: label, explanation of what the picture shows.
NOTHING_MERGED = "No patches have been merged here, so each shows its own pixels."
OVERLAYS = {
    "fate": (
        "Fate",
        "What became of each patch. Outlined: kept. Blue: merged into a kept token. Light hatch: "
        "summed up with others in one extra token. Dark hatch: dropped.",
    ),
    "kept": (
        "Kept",
        "The patches whose tokens are still there, at full brightness; all others are dimmed.",
    ),
    "merged": (
        "Merged",
        "The picture as the merged tokens see it: each group of patches in its mean colour.",
    ),
    "groups": (
        "Groups",
        "Patches of one colour and border have become one token.",
    ),
    "importance": (
        "Importance",
        "Attention of the token that starts the answer. The brightest patches look most useful "
        "to the model at this layer.",
    ),
    "word": (
        "Word",
        "Where the model looked while it produced one word. Choose the word in the answer.",
    ),
}

HEAT = ("importance", "word")  # overlays that show attention

EMPTY_ANSWER = "Ask a question: the answer appears here, and every visual token can be followed."
ANSWER = "Answer"
HEARD = "Answer: {}"
COSTS = "Costs"
PER_LAYER = "Visual tokens per layer"
PROGRESS = "Progress"
RIVALS = "The chosen word, and what else the model weighed there:"
LOADING = "Loading {} …"
READING = "Reading the picture …"
ANSWERING = "Answering …"
WAITING = "Waiting …"
IN_LINE = "Waiting for the model: {} before you …"
CROWDED = "{} questions are waiting for the model: try again in a minute."
MEASURING = "Measuring vanilla on the same picture …"
ANSWERED = "Answered in {}."
UNFINISHED = "Not finished. This is the answer that was here before."
NOT_MEASURED = "Vanilla has not been measured on these inputs."
ASKED = "{}, as asked"
# What pictures tell: with a pointer, and where nothing hovers.
POINT = "Point at a patch to see where it went, and why; click to follow it."
POINT_AT_ANY = (
    "Point at a patch of one picture: all of them show where it went; click to follow it."
)
TAP = "Tap a patch to see where it went, and why."
OUTDATED = "The settings have changed: ask again."
CROPPED = "The model sees the middle {} of this picture; its processor cuts off the rest."
FRAMED = " Only the nearest of that is drawn here."
FAINT = "Only {} of the attention in this layer is on the picture."
STAGE_BACK = " An earlier stage shows more."
UNLIKE_VANILLA = "Without compression the model says “{}”."
NOTHING_REMOVED = "Nothing was removed: all tokens stay, so nothing is saved."
AS_MANY = "{} of {} tokens stay, and {} up the rest: as many as before, so nothing is saved."
AFTER_THE_LAST = (
    "Tokens go after the last layer only, where nothing is left to save: choose another."
)
HARDLY = (
    "The method's own rule keeps {} of {} tokens here{}. The more patches stand out by their "
    "attention, the smaller the steps in which it adds others; here they are 1, so it adds nearly "
    "all, and nearly nothing is saved. A ratio among the method's parameters sets the number."
)
AND_SUMS = ", each blended with those most like it, and {} up the rest"
FROM_EXAMPLE = "A stored answer: nothing was computed for it. Press Ask to run it here."
FROM_FILE = "Opened from a file: nothing was computed for it."

TRACE_PICTURE = "The picture of the trace file"
TRACE_VIDEO = "The video of the trace file"
CREDITS = "Whose pictures these are"
PICTURE_ALT = "The picture to ask about"
MOVES = "This picture moves, and its first frame is asked about. “Add” below takes all of it."
STANDS = (
    "This picture has more than one frame, and only the first is looked at: to ask about all of "
    "them, add it as a video, such as GIF or MP4."
)
FIRST_FRAME = "The first frame of the video to ask about"
NOT_UPLOADED = "This is not a picture that was uploaded here: drop one, or pick an example."
NO_FILE = (
    "There is no picture or video: give an uploaded file, by handle_file of gradio_client, or with "
    "curl as in the README."
)
NO_PICTURE = "There is no picture yet: drop one, paste one, or pick an example."

# Several pictures, and videos
ADD = "Add pictures, or a video"
SEVERAL = "{} pictures, in the order of the question."
CLIP = "{} · {:.1f} s · {} frames"
REMOVE = "Remove picture {}"
REMOVE_VIDEO = "Remove the video"
ONE_VIDEO = "A question is about pictures or about one video: add a video alone."
TOO_MANY_PICTURES = "These are {} pictures; at most {} are possible. Choose fewer."
NO_SUCH_FRAMES = "This number of frames cannot be chosen here: add the video again."
PICTURES = "Pictures"
FRAMES = "Frames"
FRAMES_HELP = "Equally far apart in time. More of them make more tokens."
PICTURE_OF = "Picture {} of {}"
FRAME = "Frame {} of {}, at {} s"
SECONDS = "{} s"

QUESTION_HELP = "Press Enter to ask."
FOLLOW = "Follow up"
FOLLOW_HELP = "Goes on from the answer shown; its cache is used again where settings are the same."
EARLIER = "Earlier in this conversation"
NOTHING_TO_FOLLOW = (
    "There is no answer about these pictures to follow up on: untick Follow up, or ask about them "
    "first."
)
ONE_QUESTION = "The model was trained on single questions: a conversation may confuse it."
METHOD_HELP = "How visual tokens become fewer."
RATIO_HELP = "Share of the visual tokens that each chosen layer removes."
RATIO_OF_DECODER = (
    "Share of the visual tokens that each chosen decoder layer removes; what the encoder layers "
    "remove is a parameter below."
)
ENCODER_LAYERS_HELP = "Tokens are merged inside these layers of the vision encoder."
LAYERS_HELP = "Tokens are removed after these decoder layers."
NO_RATIO = "Nothing is removed without a method."
NO_LAYERS = "This method removes no tokens in the language model."
RATIO_ELSEWHERE = "This method finds out itself how many to remove; its parameters are below."
MODEL_HELP = (
    "What this machine has room for. All visitors share it: another model may have to wait for "
    "theirs, and is downloaded the first time. Others: see Learn."
)
PRESET_HELP = "As in the papers, at this model's depth."
NO_PRESET = "The plain model has no settings."
OWN_SETTINGS = "None: as set here"
STAGE_HELP = "Moves every picture: before compression, then after each compression layer."
OVERLAY_HELP = "What to paint on every picture."
TRACE_HELP = (
    "A trace file holds the answer, its pictures and numbers; it opens here without the model."
)
STRIP = (
    "The sequence of visual tokens at this stage, one bar per patch in reading order. Full: kept. "
    "Half: merged. Low: in the extra token. Stub: dropped."
)
SLIDER = "Left of the handle: {}. Right: {}."

COMPARE = (
    "The picture and the question of the Ask tab under any set of methods. The method that is set "
    "there keeps its settings; the others run as in their papers."
)
METHODS_HELP = (
    "One after the other on the same encoder features, except methods inside the encoder, which "
    "run their own."
)
COMPARE_RATIO_HELP = (
    "Each method's own, a share that each step removes (but iLLaVA's inside the encoder), or the "
    "share that is left in the end under every method, however many steps it takes."
)
POSITION_HELP = "In step: methods with fewer steps move on later, and all end together."
REFERENCE = "The answer that the others are held against."
SAME = "The same as {}."
DIFFERS = "Unlike {} from word {} on."
ENDS = "(ends here)"
SILENT = "(no words)"
NOTHING_COMPARED = "There are no answers to compare yet: press Compare, or ask a question."
FAILED = "This failed unexpectedly; the log of the page says why."
NO_METHODS = "There is no method to compare: choose at least one."
LAST_ANSWER = "These are the last answer and vanilla's. Press Compare to run the methods above."
COMPARED = "{} of {} methods answered."
IN_TURNS = "All have answered. Measuring their prefills in turns …"
STOPPED = "Stopped. {} of {} methods answered."
MEASURED = (
    "FLOPs and KV cache: as shares of vanilla's, visual tokens in the decoder alone. Times: {}, {}."
)
MEASURED_ONCE = "once for each method"
MEASURED_IN_TURNS = "the prefills{} as medians of {} turns, all else once for each method"
BUT_FOR = " (but for {})"
MEASURED_HERE = "as measured here"
STORED_TIMES = "stored, measured on {}"
ANOTHER_MACHINE = "another machine"
POINT_IN_INSPECT = (
    "Point at a patch, a bar or a token: every view shows where it went, and why. Click to hold."
)
TAP_IN_INSPECT = "Tap a patch or a token: every view shows where it went, and why."
SELECT_TO_ASK = "Select patches to ask again with or without them."
# Asking again: how patches are forced.
AGAIN = {"keep": "{} kept in the first step", "drop": "{} dropped", "only": "all but {} dropped"}
AS_IT_WAS = "As it was"
ASKING_AGAIN = "Asking again …"
AGAIN_SAME = "Both say the same; what else was weighed there is below."
AGAIN_DIFFERS = "They part at word {}; what else was weighed there is below."
AGAIN_UNCLEAR = "These are no patches to keep or drop: select some in the picture."
AGAIN_NOTHING = "No patch is selected: mark some with Box or Brush, or click with Ctrl."
AGAIN_COUNT = (
    "This answer kept {} tokens, a fixed number, so no patch can be kept on top: set a ratio "
    "instead, ask, and try again."
)
AGAIN_ELSEWHERE = "This answer is from {}, which this page does not run: ask on the Ask tab first."
AGAIN_IN_PART = "The trace holds only a part of the video: ask on the Ask tab first."
BACK = "Back to the answer as it was"
INSPECTED_NO_MORE = "This answer has given way to another one: open the tab again."
FIGURES = (
    "Every figure that the current answer gives, to look at, to print (PNG, SVG, PDF), and with "
    "the numbers behind it (CSV)."
)
DRAWING = "Drawing: {} of {} …"
DRAWING_FIGURES, DRAWN = "Drawing the figures …", "The figures are drawn."
SAVE = "Save"
EFFICIENCY = (
    "What compression saves: by arithmetic, by the clock, and what it would save elsewhere. The "
    "answers are those of the Compare tab, or the last one beside vanilla's."
)
CLOCK = "Times of the answers: {}."
CHARTS = (
    (PER_LAYER, "Each step down is a compression layer; the rest works on less."),
    (
        "Theory against measurement",
        "How many times faster than vanilla the prefill is: by the FLOPs of all tokens, and by the "
        "clock. A comparison measures short ones three times, in turns; of an answer alone, far "
        "above 100 % means that vanilla was held up.",
    ),
    (
        "Cost beside vanilla",
        "FLOPs and KV cache of the visual tokens, and the measured time of the whole answer.",
    ),
    (
        "Roofline",
        "On the slope a device waits for its memory, on the flat for its arithmetic. Filled marks "
        "are the most that could be; hollow ones, once you have asked here, were measured.",
    ),
    (
        "What it would cost",
        "Least times by the roofline for the same share of tokens per layer, in the precision of "
        "the device's rates; and the KV cache of all tokens.",
    ),
)
ELSEWHERE = "What would it cost on …"
ELSEWHERE_HELP = (
    "The same compression carried over to another model, picture size or device. Times are by peak "
    "rates, published or measured here, which hardly anything reaches. Attention counts as if each "
    "token saw all others; fused kernels do half of that work, which matters in long prompts."
)
UNEQUAL = "vanilla {}, for more or fewer words: one of them went behind an earlier answer"
FOLLOWS = (
    "This answer follows another one: its prefill took the new words alone, behind the cache of "
    "the first. Ask without “Follow up” to hold it against what is counted."
)
AS_ASKED = "As asked"
THIS_MACHINE = "This machine (measured)"
ELSEWHERE_MODEL_HELP = "Its published sizes, with the same share of tokens in each layer."
DEVICE_HELP = "Published peak rates: half precision."
TOKENS_HELP = "Empty: as many as the model has for one picture."
ESTIMATED = (
    "FLOPs of encoder, connector and prefill, a multiply-add counted as two. Activations: the most "
    "that the prefill holds at once, estimated. Small: beside vanilla."
)
OUTRUN = (
    "Something was faster than this machine's rates allow: it was busy when they were measured, so "
    "the least times are too long."
)
NO_SIZES = "The sizes of {} are not known here: choose a model below."
NO_VANILLA = "This needs vanilla among the answers: press Compare with vanilla on the Ask tab."
NO_TIMES = "This needs measured times, and one of the answers has none."
SWEEP = "Sweep over ratio and layer"
SWEEP_HELP = (
    "The picture and the question of the Ask tab under its method, at every ratio after every "
    "layer, each layer alone."
)
SWEEP_LAYERS_HELP = "Empty: four over the depth."
SWEEP_CHART = (
    "Left by the papers' formula, right by the clock: three runs in turns with vanilla's, their "
    "median and a bar from the least to the greatest; one where a run takes a second and more. "
    "Hollow: another answer than vanilla's."
)
NOT_SWEPT = "Nothing has been swept yet."
SWEEPING = "Answering …"
SWEPT = "{}: {} settings beside vanilla."
UNSWEPT = "Not finished. This is the sweep that was here before."

# How the methods are grouped, in this order.
GROUPS = {
    "none": "No compression",
    "prune": "Dropping tokens in the language model",
    "merge": "Merging tokens in the language model",
    "connector": "Between the vision encoder and the language model",
    "encoder": "Inside the vision encoder",
    "baseline": "Baselines",
}


def _section(paper: str, number: str) -> str:
    """A section of a paper: the name that LaTeX gives it in the PDF, where browsers find it."""
    depth = ("section", "subsection", "subsubsection")[number.count(".")]
    return f"{paper}#nameddest={depth}.{number}"


# Where the papers are; the baselines are taken from iLLaVA's and PruMerge's tables.
_ARXIV = "https://arxiv.org/pdf/"
_LIBRA = (
    "https://openaccess.thecvf.com/content/CVPR2025/papers/Yang_Libra-Merging_Importance-redundancy"
    "_and_Pruning-merging_Trade-off_for_Acceleration_Plug-in_in_Large_CVPR_2025_paper.pdf"
)
_ILLAVA, _PRUMERGE = _ARXIV + "2412.06263", _ARXIV + "2403.15388"
PAPERS = {
    "fastv": _section(_ARXIV + "2403.06764", "4.1"),
    "libra": _section(_LIBRA, "3.2"),
    "turbo": _section(_ARXIV + "2407.11717", "3"),
    "pyramiddrop": _section(_ARXIV + "2410.17247", "3.2"),
    "sparsevlm": _section(_ARXIV + "2410.04417", "3.2"),
    "illava": _section(_ILLAVA, "3.2"),
    "prumerge": _section(_PRUMERGE, "3.2"),
    "prumerge+": _section(_PRUMERGE, "3.4"),
    "visionzip": _section(_ARXIV + "2412.04467", "3.2"),
    "fastervlm": _section(_ARXIV + "2412.01818", "4"),
    "divprune": _section(_ARXIV + "2503.02175", "3"),
    "tome": _section(_ARXIV + "2210.09461", "3"),
    "evit": _section(_ARXIV + "2202.07800", "3.2"),
    "greedy": _section(_ILLAVA, "4.6"),
    "kmeans": _section(_ILLAVA, "4.6"),
    "random": _section(_ILLAVA, "4.6"),
    "sequential": _section(_PRUMERGE, "4.4.1"),
    "spatial": _section(_PRUMERGE, "4.4.1"),
}

IDEA = """<p>A vision-language model cuts a picture into patches and turns each into a
<b>visual token</b>. Its language model reads them like words, hundreds for one picture, in every
layer. Most of them matter little for a given question, so most of that work is spent on little.</p>
<p><b>Compression</b> goes on with fewer tokens after some layers. Which may go is told by
<b>importance</b>: the attention of the token that is about to start the answer. <b>Pruning</b>
drops the rest; <b>merging</b> folds them into tokens that stay, so that less is lost.</p>
<p>On the Ask tab, move <b>Stage</b> and watch the patches go. Go back to a stage before the last
and choose <b>Importance</b> to see what decided the next one.</p>"""

LESSONS = (
    "Each opens a stored answer in the inspector and leads through it step by step. Nothing is "
    "computed, and you can leave the path at any time. New here? Take FastV, which drops, then "
    "Libra-Merging, which merges; then box an object there, and ask again without it."
)
OUTCOME = "{}: {} tokens, says “{}”"
PRESETS = "As in the papers:"
DIAGRAM = (
    "Each diagram is the method itself at work on sixteen toy tokens: colour is content, the bar "
    "above is importance, lines lead to the token that each becomes part of."
)

KNOWS_SCENES = (
    "It was trained from scratch on composed scenes: objects in emoji style on plain or textured "
    "backgrounds. Ask in these forms, with the objects below."
)
# Kind, an example, its form as a pattern ({x} is an object with its article), the answers.
QUESTION_FORMS = (
    ("Is it there?", "Is there a cat in the image?", "is there {x} in the image", "yes, no"),
    ("How many?", "How many dogs are there?", "how many {x} are there", "0 to 5"),
    (
        "Left or right?",
        "Is the car to the left or to the right of the tree?",
        "is {x} to the left or to the right of {x}",
        "left, right",
    ),
    (
        "Above or below?",
        "Is the car above or below the tree?",
        "is {x} above or below {x}",
        "above, below",
    ),
    (
        "Corners",
        "What is in the top left corner?",
        "what is in the (?:top|bottom) (?:left|right) corner",
        "an object",
    ),
    (
        "Neighbours",
        "What is to the left of the cat?",
        "what is (?:to the left of|to the right of|above|below) {x}",
        "an object",
    ),
    ("Colour", "What color is the ball?", "what color is {x}", "a colour"),
    ("Signs", "What does the sign say?", "what does the sign say", "letters and digits"),
    ("Everything", "Describe the image.", "describe the image", "a cat, two dogs and a car"),
    (
        "Two or three pictures",
        "Which image has the cat?",
        "which image has {x}",
        "first, second, third, none",
    ),
    ("Film: ways", "Which way does the dog move?", "which way does {x} move", "left, up ..."),
    ("Film: the last", "What appears last?", "what appears last", "an object"),
    ("Film: how many?", "How many dogs appear?", "how many {x} appear", "0 to 5"),
)
LARGER = (
    "Photos and free questions are outside its world: it will answer, and be wrong. They need a "
    "larger model."
)
BEYOND = "Photos need a larger model: see Learn."
UNKNOWN = "The model was not trained on “{}”. Learn lists the objects it knows."
OUTSIDE = "The model was not trained on questions of this form. Learn lists what it knows."
SCENES = "Composed scenes of common objects."
ANY_PHOTO = "Ask about any photo in your own words."
OTHER_MODELS = "The page starts with one model. To start it with a larger one, which is downloaded:"
