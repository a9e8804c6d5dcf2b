"""What an inspection says of one model, with no population of clean models to compare with."""

from __future__ import annotations

from bezoar.measure.outliers import FEW_CLASSES, outlier_p_value
from bezoar.records import Inspection
from bezoar.roles import Detector


def p_value(inspection: Inspection) -> float:
    """Of the most suspicious class: the detector's own, else Grubbs' test on its scores."""
    return outlier_p_value(inspection.scores) if inspection.p_value is None else inspection.p_value


def silence(detector: Detector, inspection: Inspection) -> str:
    """Why this inspection says nothing, or an empty text."""
    if not bool(inspection.scores.isfinite().all()):
        return "the model gives no finite scores; are its weights finite?"
    if not detector.normal:
        return "its scores rank classes but cannot tell how far is too far"
    if inspection.abstained:
        return f"the detector abstained: {inspection.abstained}"
    if len(inspection.scores) < FEW_CLASSES:
        return f"{len(inspection.scores)} classes are too few to compare the worst with the others"
    success = inspection.evidence.get("success")
    if success is not None and float(success.quantile(0.5)) == 0:
        return "for most classes no trigger was found that works, so there is nothing to compare with"
    return ""
