"""What the words and the intervals on a page mean, for a reader who has met none of them."""

from __future__ import annotations

from bezoar.report.page import Section, Table

_MEANINGS = {
    "data poisoning": (
        "Somebody slips a few pictures into the data from which a model learns, and so decides part of what it learns."
    ),
    "backdoor": (
        "The result of such poisoning: the model works as it should until a picture carries a secret mark, and then "
        "it answers what the attacker wants."
    ),
    "trigger": "The secret mark. A detector does not know it and tries to reconstruct it, once for every class.",
    "target class": "The class that the attacker wants for every picture with the mark.",
    "suspect, twin": (
        "The suspect learned from the poisoned data. Its clean twin learned from the same data without the poison, "
        "from the same random start; it shows what is normal."
    ),
    "trusted pictures": "A few clean pictures with true labels. They are all that a defender has besides the model.",
    "clean accuracy": "The share of unmarked test pictures that a model classifies correctly. High is good.",
    "attack success": (
        "The share of marked test pictures that a model puts into the target class; pictures that really show that "
        "class are not counted. Low is good."
    ),
    "natural success": "Attack success of the clean twin: how often the mark works by mere chance. No repair can be "
    "asked for less.",
    "accuracy lost": "Clean accuracy of the suspect less that of the repaired model, on the same pictures.",
    "budget": "How much clean accuracy a repair may cost.",
    "oracle": (
        "The repaired model with the lowest attack success within the budget. Choosing it takes knowledge of the "
        "attack that no defender has: a bound, not a promise."
    ),
    "final": "The last repaired model within the budget, which takes a large test set to know.",
    "blind": (
        "What a defender gets: the repair is stopped at the last step that a cross-validation on the trusted pictures "
        "accepts. Each picture judges models whose repair never saw it."
    ),
    "score": "How suspicious a detector finds a class; a model's score is that of its most suspicious class.",
    "p-value": (
        "How often the worst class of a harmless model would stand out from the others this much (Grubbs' test, "
        "corrected for its being the worst of all classes). Below 0.05 the model is called suspicious."
    ),
    "AUC": (
        "How often a poisoned model scores higher than a clean one, a tie counting half: 1 means that the two are "
        "always told apart, 0.5 that the detector guesses."
    ),
}

_INTERVALS = {
    "a share of pictures or models": (
        "Wilson's score interval. Pictures made from one original are not independent; the interval is as wide as "
        "their effective number says."
    ),
    "accuracy lost": "The paired interval of Agresti and Min (2005): only pictures on which the two models differ "
    "count.",
    "a mean over seeds": "Student's interval over runs with different random seeds, cut at 0 and 100 % for a share. "
    "With one or two seeds the values themselves are shown.",
    "AUC": "Newcombe's score interval (2006, method 5), which does not shrink to nothing when all models are told "
    "apart.",
}


def glossary(*words: str) -> Section:
    """What some words mean, in plain words; all of them if none is named."""
    chosen = words or tuple(_MEANINGS)
    table = Table(("word", "meaning"), [(word, _MEANINGS[word]) for word in chosen])
    return Section("What do these words mean?", table=table)


def intervals(*numbers: str) -> Section:
    """How the interval of each kind of number is computed; of all kinds if none is named."""
    chosen = numbers or tuple(_INTERVALS)
    text = "If everything were repeated many times, about 95 of 100 such intervals would hold the true value."
    table = Table(("number", "its 95 % interval"), [(name, _INTERVALS[name]) for name in chosen])
    return Section("How sure are these numbers?", text, table)
