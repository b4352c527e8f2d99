"""How much memory is free, and whether a batch fits into it."""

from __future__ import annotations

import os
from pathlib import Path

import torch


def require(needed: float, batch: int, workers: int, device: torch.device) -> None:
    """Refuse a batch that does not fit.

    Args:
        needed: bytes for an instance.
        batch: instances at once, of all workers together.
        workers: processes.
        device: whose memory it is.

    Raises:
        MemoryError: says what is needed, what is free, and which chunk fits.
    """
    free = available(device)
    if free is None or needed * batch <= free:
        return
    fits = int(0.5 * max(free, 0) / needed / workers)
    together = f" ({workers} workers together)" if workers > 1 else ""
    remedy = f"chunk={fits} fits" if fits else "not even one fits"
    raise MemoryError(
        f"chunk: {batch} instances at once{together} need about {_readable(needed * batch)}, and "
        f"{_readable(max(free, 0))} are free; {remedy}"
    )


def _readable(count: float) -> str:
    """Bytes for people."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"


def available(device: torch.device) -> int | None:
    """Bytes of a device's memory that are free for this process, as far as the system tells; else None."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type != "cpu":
        return None
    found = []
    try:
        found.append(1024 * int(Path("/proc/meminfo").read_text().split("MemAvailable:")[1].split()[0]))
        limit, used = (Path(f"/sys/fs/cgroup/memory.{name}").read_text().strip() for name in ("max", "current"))
        found.append(int(limit) - int(used))
    except (OSError, ValueError, IndexError):  # no Linux, no limit
        pass
    if not found and hasattr(os, "sysconf") and "SC_AVPHYS_PAGES" in os.sysconf_names:
        found.append(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min(found) if found else None
