"""Looking inside networks that see: what their channels answer to, and which region of a picture decided."""

from pellucid.tracing.pictures.channels import (
    Patch,
    feature_maps,
    filters,
    strongest_patches,
    top_pictures,
)
from pellucid.tracing.pictures.dreams import dream
from pellucid.tracing.pictures.fields import Box, receptive_field
from pellucid.tracing.pictures.looking import Look, look
from pellucid.tracing.pictures.regions import Region, grad_cam, region
from pellucid.tracing.pictures.scale import Scale, read_pictures

__all__ = [
    "Box",
    "Look",
    "Patch",
    "Region",
    "Scale",
    "dream",
    "feature_maps",
    "filters",
    "grad_cam",
    "look",
    "read_pictures",
    "receptive_field",
    "region",
    "strongest_patches",
    "top_pictures",
]
