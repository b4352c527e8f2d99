"""Learned accelerators: networks that choose the start, correct the steps or mix the history."""

from accelerators.neural.baselines import MeanStart, NearestStart, RidgeStart
from accelerators.neural.coordinate import CoordinateGRU
from accelerators.neural.mixing import Mixing
from accelerators.neural.momentum import LearnedMomentum
from accelerators.neural.recurrent import GRU, LSTM
from accelerators.neural.secants import Secants
from accelerators.neural.sites import SiteGRU
from accelerators.neural.start import WarmStart

__all__ = [
    "GRU",
    "LSTM",
    "CoordinateGRU",
    "LearnedMomentum",
    "MeanStart",
    "Mixing",
    "NearestStart",
    "RidgeStart",
    "Secants",
    "SiteGRU",
    "WarmStart",
]
