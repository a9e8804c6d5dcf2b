"""Every architecture of the registry keeps the promises of its role."""

from pathlib import Path

import pytest

from bezoar.component import build
from bezoar.roles import Architecture
from bezoar.testing import NeedsSettingsError, check, instance
from conformance import cases, hold, ready


@cases(ready("architectures", leave_out=["huggingface"]))
def test_architecture(component, claim):
    hold(component, claim)


def test_a_hugging_face_network_keeps_them_as_well(tmp_path: Path):
    transformers = pytest.importorskip("transformers")
    sizes = {"num_channels": 3, "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}
    transformers.ResNetConfig(**sizes, layer_type="basic").save_pretrained(tmp_path)
    failures = [
        outcome
        for outcome in check(build(Architecture, {"kind": "huggingface", "name": str(tmp_path)}))
        if outcome.failure
    ]
    assert not failures


def test_a_network_that_only_its_user_can_name_is_not_said_to_pass():
    huggingface = type(build(Architecture, {"kind": "huggingface", "name": "anywhere"}))
    with pytest.raises(NeedsSettingsError, match="name"):
        instance(huggingface)
    (outcome,) = check(huggingface)
    assert outcome.failure == "huggingface needs settings: name"
