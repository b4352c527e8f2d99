"""Convex cones: projection and dual, one cone per file; `product` puts them in the row order of SCS."""

from maps.cones.box import Box
from maps.cones.calculus.decomposed import DecomposedCone, Parts, clipped_differences
from maps.cones.checks import check_cone
from maps.cones.composite.product import ConeSpec, ProductCone
from maps.cones.cone import Cone, Dual
from maps.cones.exponential import Exponential
from maps.cones.l1_norm import L1Norm
from maps.cones.nonnegative import Nonnegative
from maps.cones.nuclear_norm import NuclearNorm
from maps.cones.power import Power
from maps.cones.psd import PSD
from maps.cones.second_order import SecondOrder
from maps.cones.zero import Zero

__all__ = [
    "PSD",
    "Box",
    "Cone",
    "ConeSpec",
    "DecomposedCone",
    "Dual",
    "Exponential",
    "L1Norm",
    "Nonnegative",
    "NuclearNorm",
    "Parts",
    "Power",
    "ProductCone",
    "SecondOrder",
    "Zero",
    "check_cone",
    "clipped_differences",
]
