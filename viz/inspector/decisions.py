"""What ranked the tokens of an event, and what could be decided otherwise on the same tokens."""

from collections.abc import Sequence

import torch
from torch import Tensor

from libra import methods
from libra.reduction import Fate
from libra.trace import Event, Trace


def extra_token(trace: Trace) -> str:
    """What the token that sums up others is called: by its name where the method has one for it."""
    own = trace.method in methods.METHODS and methods.takes(trace.method, "compensation")
    return "compensation token" if own else "extra token"


def measure(trace: Trace, event: Event) -> tuple[str, Tensor | None]:
    """What importance means in this event, and its value for each input token [n_in].

    A decoder's event without importance of its own shows the attention of its layer.
    """
    facts = event.reduction.evidence
    if "received" in facts:
        return "attention received from all patches", facts["received"]
    if event.site != "decoder":
        layer = "" if event.site == "connector" else f", layer {event.layer}"
        return f"attention in the encoder{layer}", facts.get("importance")
    row = trace.importance[event.layer] if trace.importance else None
    known = trace.method in methods.METHODS
    asks = known and "text_attention" in methods.create(trace.method).needs
    who = "words about the picture" if asks else "last prompt token"
    label = f"attention of the {who}, layer {event.layer}"
    return label, facts.get("importance", row)


def rule(event: Event, spare: Sequence[int]) -> str:
    """What the choice followed, as far as the decision itself shows it.

    Args:
        event: the event.
        spare: the earlier compensation tokens among its inputs, which no rule counts.

    Returns:
        "interval": the best of each interval stays; "redundancy": redundant tokens of little
        importance go; "top": the most important stay; "" where none of these holds for all tokens
        together: extra tokens of several pictures tell that each was decided about alone.
    """
    facts, fate = event.reduction.evidence, event.reduction.fate()
    for fact, name in (("interval", "interval"), ("redundancy", "redundancy")):
        if fact in facts:
            return name
    score = facts.get("received", facts.get("importance"))
    if score is None or event.reduction.further:
        return ""
    counted = _counted(score, spare)
    kept, others = (score[counted & (fate == Fate.KEPT)], score[counted & (fate != Fate.KEPT)])
    ranked = len(kept) and len(others) and bool(kept.min() >= others.max())
    return "top" if ranked else ""


def what_if(trace: Trace, event: Event, spare: Sequence[int]) -> dict:
    """The parameters that can be re-decided on the stored tokens of an event.

    Returns:
        `keep`, where the stored importance alone says which tokens a smaller or larger count would
        keep: how many of how many stay now, and the fate of the others (None: it depends on hidden
        states, which a trace does not hold). `tau`, where the best similarities are stored and
        decide. `eta`, the temperature in use, where importance sets the weights.
    """
    facts, fate = event.reduction.evidence, event.reduction.fate()
    found = rule(event, spare)
    if found not in ("interval", "top"):
        return {}
    counted = _counted(facts.get("received", facts.get("importance")), spare)
    rest = fate[counted & (fate != Fate.KEPT)].unique().tolist()
    alike = len(rest) == 1 and rest[0] != Fate.MERGED
    merge = trace.params.get("merge", "grouped") if "similarity" in facts else "none"
    can = {
        "keep": {
            "kept": int((fate[counted] == Fate.KEPT).sum()),
            "of": int(counted.sum()),
            "rest": rest[0] if alike and merge != "grouped" else None,
        }
    }
    if merge == "grouped" and "tau" in trace.params:
        compensates = trace.params.get("compensation", "end") != "none"
        can["tau"] = trace.params["tau"]
        can["negative"] = int(Fate.COMPENSATED if compensates else Fate.DROPPED)
    if merge in ("grouped", "positive"):
        mean = float(facts["importance"][counted].mean())
        can["eta"] = trace.params.get("eta") or mean
    return can


def _counted(score: Tensor, spare: Sequence[int]) -> Tensor:
    """Bool [n_in]: the tokens that the method itself decided about."""
    counted = ~torch.isnan(score)
    counted[list(spare)] = False
    return counted
