"""Accelerators that ship with the project; each sees evaluations only, never the map."""

from accelerators.anderson import AndersonI, AndersonII
from accelerators.momentum import Momentum
from accelerators.picard import Picard
from accelerators.relaxation import Relaxed
from accelerators.safeguard import Safeguarded
from accelerators.schedule import Schedule

__all__ = ["AndersonI", "AndersonII", "Momentum", "Picard", "Relaxed", "Safeguarded", "Schedule"]
