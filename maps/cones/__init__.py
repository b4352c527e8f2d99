"""Convex cones: projection and dual, one cone per file; `product` puts them in the row order of SCS."""

from maps.cones.cone import Cone
from maps.cones.nonnegative import Nonnegative
from maps.cones.product import ConeSpec, ProductCone
from maps.cones.second_order import SecondOrder
from maps.cones.zero import Zero

__all__ = ["Cone", "ConeSpec", "Nonnegative", "ProductCone", "SecondOrder", "Zero"]
