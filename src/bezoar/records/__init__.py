"""What travels between players and referee: frozen records of tensors with documented shapes and units.

Images at rest are uint8 in [0, 255] with shape [n, c, h, w]; images on their way into a model are
float in [0, 1]. Labels are int64.
"""

from bezoar.records.answers import Certificates, Estimate, Inspection, Norm, Tier
from bezoar.records.images import Dataset, Reader, Rows, Trusted, as_float, as_stored
from bezoar.records.poisons import Poison, Probe

__all__ = [
    "Certificates",
    "Dataset",
    "Estimate",
    "Inspection",
    "Norm",
    "Poison",
    "Probe",
    "Reader",
    "Rows",
    "Tier",
    "Trusted",
    "as_float",
    "as_stored",
]
