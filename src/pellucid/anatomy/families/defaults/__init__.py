"""What fields are that a configuration leaves out: as in Hugging Face's own classes (transformers 5.23)."""

from typing import Any

from pellucid.anatomy.families.defaults.encoders import ENCODERS
from pellucid.anatomy.families.defaults.gpt import GPTS
from pellucid.anatomy.families.defaults.language import LANGUAGE
from pellucid.anatomy.families.defaults.mixtures import MIXTURES
from pellucid.anatomy.families.defaults.vision import VISION

DEFAULTS: dict[str, dict[str, Any]] = GPTS | LANGUAGE | MIXTURES | ENCODERS | VISION  # by `model_type`
