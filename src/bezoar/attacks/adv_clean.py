"""AdvClean: adversarially perturbed images of the target class."""

from __future__ import annotations

from bezoar.attacks.stamping import CleanLabel
from bezoar.component import register
from bezoar.errors import SettingError
from bezoar.lab import Lab
from bezoar.models.classifier import Classifier
from bezoar.records import Dataset, Poison
from bezoar.roles import Trigger
from bezoar.seed import Seed
from bezoar.triggers.perturbation import Perturbation


@register("adv_clean", paper="Turner et al., 2018; arXiv:2305.09671, appendix B")
class AdvClean(CleanLabel):
    """Perturb m images of the target class towards some class of a surrogate; their labels stay true (spec 2.3).

    The same transform of a test image is the trigger: no patch is stamped (Turner et al. add one). The
    paper's surrogate is torchvision's ResNet-18 (``trigger: {surrogate: pretrained}``), its direction
    class 421 of ImageNet. With a surrogate that knows the victim's own classes, the direction must not be
    the target class: that would be evasion, which needs no poison.
    """

    trigger: Trigger = Perturbation()

    def poison(self, clean: Dataset, lab: Lab, seed: Seed) -> Poison:
        """`poisons` distinct rows of the target class, each `boost` times.

        Raises:
            SettingError: too few images, or the perturbation leads to the target class itself.
        """
        require_detour(self.trigger, lab.surrogate, clean, self.target)
        return super().poison(clean, lab, seed)


def require_detour(trigger: Trigger, surrogate: Classifier | None, clean: Dataset, target: int) -> None:
    """Refuse a perturbation towards the backdoor's own target class.

    Raises:
        SettingError: the surrogate knows the victim's classes and the perturbation leads to the target.
    """
    if not isinstance(trigger, Perturbation) or surrogate is None or surrogate.classes != clean.classes:
        return
    if trigger.direction(surrogate) == target:
        raise SettingError(
            f"attack.trigger.toward: {target} is the backdoor's target itself, so the trigger would work without any "
            f"poison; choose another of the classes 0 to {len(clean.classes) - 1}"
        )
