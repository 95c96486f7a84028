"""What the guided tours say of each method: its idea, and what its pictures teach."""

from typing import NamedTuple


class Story(NamedTuple):
    """Sentences of a tour that the trace cannot tell."""

    idea: str  # what the method goes by
    lesson: str  # what to look for in the result
    look: str | None = None  # what the lesson speaks of beside the picture


STORIES = {
    "turbo": Story(
        "Turbo asks two things of every token: how much it repeats another one, and how little "
        "it is attended to. Redundancy less attention decides who goes.",
        "Most patches resemble some other one closely, so a little attention decides: a flat patch "
        "that is attended to stays, and one of an object that is not attended to merges. Point at "
        "some: the card tells how redundant each is, and how much it is attended to.",
        "card",
    ),
    "pyramiddrop": Story(
        "PyramidDrop takes the choice of FastV in several steps. Early layers have not found out "
        "yet what matters, so they drop only a part; deeper ones ask again and drop more. What is "
        "left is numbered anew: deeper layers see it side by side, wherever it was.",
        "A patch that a deep layer would have wanted may be gone by then. Go back to the first "
        "stage and look for dropped patches that belong to what the question is about.",
    ),
    "sparsevlm": Story(
        "SparseVLM lets the question decide. Its words that resemble the picture most are the "
        "raters, and patches stay that the raters attend to.",
        "Another question about this picture would keep other patches. Methods that choose before "
        "the question is read always keep the same ones.",
    ),
    "illava": Story(
        "iLLaVA makes tokens fewer inside the vision encoder already, layer by layer, and once "
        "more in the language model. Each time the least attended tokens become a single one.",
        "Nothing is thrown away, but what little is attended shares one token, and its details "
        "with it. In return the encoder works on less, which methods that act after it cannot "
        "save.",
    ),
    "prumerge": Story(
        "PruMerge goes by the encoder's own summary token, CLS. A few patches get most of its "
        "attention; these outliers stay, and how many they are depends on the picture.",
        "Each kept token takes in the patches most like it, and one patch may be part of several "
        "tokens. The question has no say: the choice is made before it is read.",
    ),
    "prumerge+": Story(
        "PruMerge+ keeps the outliers of the CLS token's attention, as PruMerge does, and adds "
        "patches that are spread evenly over the picture.",
        "The spread ones look wasteful. They cover what the encoder did not find striking, and "
        "what the question may be about all the same.",
    ),
    "visionzip": Story(
        "VisionZip divides its budget. Most of it goes to the dominant patches, those with the "
        "highest attention of the encoder's CLS token; the rest to summaries of the others.",
        "Dominant patches keep their details, the summaries tell what the rest is like. The "
        "question has no say: the choice is made before it is read.",
    ),
    "fastervlm": Story(
        "FasterVLM trusts the encoder's summary token, CLS. The patches that it attends to most "
        "stay, before the language model has seen any.",
        "No layer of the language model works on what is gone, so this saves more than dropping "
        "inside it. The price: the choice cannot follow the question.",
    ),
    "divprune": Story(
        "DivPrune asks for no attention at all. It takes patches one after the other, each time "
        "the one most unlike those it has.",
        "A few patches stand for all of a flat area, and odd ones always stay, whether they "
        "matter to the question or not.",
    ),
    "tome": Story(
        "Token merging deals the tokens out to two sets. Each of the first finds the most similar "
        "one in the second, and the most similar pairs become one token.",
        "No importance is asked for. What repeats itself merges first, and what is small but "
        "different stays for long.",
    ),
    "evit": Story(
        "EViT keeps the patches with the highest attention inside the encoder, and sums up all "
        "others in one extra token.",
        "One token for all of the rest is cheap, and a weighted mean is all that it holds. Mark an "
        "object in the picture with Box to read how much of it still has tokens of its own.",
    ),
    "greedy": Story(
        "The plainest way to merge: the two most similar tokens become their mean, and so again "
        "until few enough are left.",
        "Every step compares all pairs, so this is slow. It is a yardstick for the methods that "
        "do the same in one go.",
    ),
    "kmeans": Story(
        "k-means sorts the tokens into clusters of like ones and puts the mean of each in its "
        "place.",
        "Members of a cluster count alike, so a patch that the answer needs may be averaged with "
        "many that it does not.",
    ),
    "random": Story(
        "No idea at all, and on purpose: the tokens that stay are drawn by lot.",
        "Neighbouring patches are alike, so chance keeps a little of everything. A method earns "
        "its effort only where it beats this.",
    ),
    "sequential": Story(
        "The first tokens stay: the top rows of the picture, whatever they show.",
        "If the answer lies below, it is lost. This tells what the mere number of tokens is worth.",
    ),
    "spatial": Story(
        "A grid of patches stays, spread evenly, whatever the picture shows.",
        "What is large survives, what is small may fall through the mesh. No region is missed "
        "altogether, which makes this hard to beat.",
    ),
}
