"""From a configuration to a tree of shapes. The one place that says what a family is made of, in numbers."""

from pellucid.anatomy.families.encoders import encoder, translator
from pellucid.anatomy.families.ours import convnet, decoder, dense, detector

__all__ = ["convnet", "decoder", "dense", "detector", "encoder", "translator"]
