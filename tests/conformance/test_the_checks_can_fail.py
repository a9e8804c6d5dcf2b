"""The checks themselves: a member that breaks one promise fails that claim and no other."""

import pytest

from bezoar import component
from bezoar.component import Component, members
from bezoar.testing import check
from conformance import broken_attacks, broken_certifiers, broken_defenses


@pytest.fixture
def failed(monkeypatch: pytest.MonkeyPatch):
    """Registers a class for one test and says which claims fail for it."""

    def find(cls: type[Component]) -> set[str]:
        members(cls.family)
        monkeypatch.setattr(cls, "kind", cls.__name__)
        monkeypatch.setattr(cls, "revision", 1)
        monkeypatch.setitem(component._registry[cls.family], cls.__name__, cls)
        return {outcome.claim for outcome in check(cls) if outcome.failure}

    return find


BROKEN: dict[type[Component], set[str]] = {
    broken_attacks.Undocumented: {"it is documented"},
    broken_attacks.Fluid: {"its settings cannot be changed"},
    broken_attacks.Unclamped: {"stamped images are images"},
    broken_attacks.InPlace: {"the images are left alone"},
    broken_attacks.NoiseByBatch: {"a row is stamped alike in any batch"},
    broken_attacks.Invisible: {"the trigger can be seen"},
    broken_attacks.DrawsFromNumpy: {"stamping leaves global state alone"},
    broken_attacks.DrawsFromTorch: {"poisoning leaves global state alone"},
    broken_attacks.DependsOnTheGenerator: {"the same seed gives the same poison"},
    broken_attacks.IgnoresTheSeed: {"another seed chooses other rows"},
    broken_attacks.WritesIntoTheData: {"the clean data are left alone"},
    broken_attacks.NeedsMemory: {"data read on demand give the same poison"},
    broken_attacks.OverBudget: {"the budget is exact and no row is poisoned twice"},
    broken_attacks.TakesTheTargetClass: {"poisoned rows show the target class exactly if labels stay true"},
    broken_attacks.TakesWhatThereIs: {"too large a budget is refused by name"},
    broken_attacks.FlattersItself: {"the probe wants what its images do not show"},
    broken_defenses.Unscoped: {"the same seed gives the same weights", "building leaves global state alone"},
    broken_defenses.AlwaysTheSame: {"another seed gives other weights"},
    broken_defenses.LeftInTrainingMode: {"the model is returned ready for use"},
    broken_defenses.ForgetsALayer: {"every parameter is trained"},
    broken_defenses.Repair: set(),
    broken_defenses.MutatesItsInput: {"a repair leaves its input alone"},
    broken_defenses.YieldsTooFew: {"it yields as many models as it says"},
    broken_defenses.YieldsCopies: {"it yields one student in evaluation mode"},
    broken_defenses.LeaksGradientMode: {"global state is as before whenever one looks"},
    broken_defenses.LeavesAHookWhenAbandoned: {"an early break leaves nothing behind"},
    broken_defenses.SharesABuffer: {"the student shares no memory with the suspect"},
    broken_defenses.RepairsByChance: {"the same seed repairs alike"},
    broken_defenses.Diverges: {
        "the student changes and stays finite",
        "few trusted images are enough or refused in words",
    },
    broken_defenses.RepairsRuins: {"weights that are no numbers are refused in words"},
    broken_defenses.NeedsCompany: {"few trusted images are enough or refused in words"},
    broken_defenses.Look: set(),
    broken_defenses.LeavesAHook: {"the suspect and the trusted images are left alone"},
    broken_defenses.RollsDice: {"inspecting leaves global state alone"},
    broken_defenses.CountsWhatItSees: {
        "a class without trusted images has a score too",
        "few trusted images are enough or refused in words",
    },
    broken_defenses.WantsMoreThanOne: {"few trusted images are enough or refused in words"},
    broken_defenses.HoldsItsGraph: {"what it says can be kept"},
    broken_defenses.TellsTooMuch: {"evidence is one finite number for each class"},
    broken_defenses.Sanitize: set(),
    broken_defenses.ScoresNobody: {
        "every row has one finite score",
        "the order of the rows does not matter",
        "data that cannot be told apart are ranked too",
        "obvious poison ranks high",
    },
    broken_defenses.LeavesTheVictimInEvaluation: {"the victim and the data are left alone"},
    broken_defenses.RanksByChance: {"the same seed says the same"},
    broken_defenses.RanksWithDice: {"ranking leaves global state alone"},
    broken_defenses.LooksAtThePlace: {"the order of the rows does not matter"},
    broken_defenses.DividesByTheSpread: {"data that cannot be told apart are ranked too"},
    broken_defenses.ThePureAreSuspicious: {"obvious poison ranks high"},
    broken_defenses.Stand: set(),
    broken_defenses.HoldsAGraph: {"every query has one finite score"},
    broken_defenses.NeedsAQuery: {"no query is no score"},
    broken_defenses.SetsTheModelToEvaluation: {"the model the queries and the trusted images are left alone"},
    broken_defenses.WritesIntoTheQueries: {"the model the queries and the trusted images are left alone"},
    broken_defenses.GuardsByChance: {"the same seed says the same"},
    broken_defenses.GuardsWithDice: {"guarding leaves global state alone"},
    broken_defenses.ComparesQueries: {"a query is scored alike among any others"},
    broken_defenses.DividesByHowManyItTrusts: {"few trusted images are enough or refused in words"},
    broken_defenses.SeesNothing: {"obvious triggers are told from clean queries"},
    broken_certifiers.Certify: set(),
    broken_certifiers.VouchesForEverything: {"no point of a certified ball has another answer"},
    broken_certifiers.VouchesForNothing: {"a robust model is vouched for"},
    broken_certifiers.CountsHalfTheRadius: {"certified means the demanded radius"},
    broken_certifiers.NamesTheNextClass: {
        "the answer is the model s",
        "no point of a certified ball has another answer",
    },
    broken_certifiers.SetsEvaluationMode: {"a model in training mode is refused"},
    broken_certifiers.ClipsWhatItIsGiven: {"values outside 0 and 1 are refused"},
    broken_certifiers.FreezesTheModel: {"the model and the images are left alone"},
    broken_certifiers.LooksAtThePlace: {"the other images do not matter"},
    broken_certifiers.RollsDice: {"certifying leaves global state alone"},
    broken_defenses.SharesSources: {"no source object is in both halves"},
    broken_defenses.LosesAName: {
        "both halves have the same classes and shape",
        "images and labels are what they should be",
    },
}


@pytest.mark.parametrize("cls", BROKEN, ids=lambda cls: cls.__name__)
def test_a_broken_promise_fails_that_claim_alone(cls: type[Component], failed):
    assert failed(cls) == BROKEN[cls]
