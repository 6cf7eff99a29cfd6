"""The machine that numbers come from: they are worth nothing without it."""

import os
import platform
import re
from importlib.metadata import version
from pathlib import Path

LIBRARIES = "couatl", "pyarrow", "adbc-driver-flightsql", "numpy"


def machine() -> dict[str, str]:
    """What describes it, in the order in which it is shown."""
    return {
        "processor": f"{processor()}, {os.cpu_count()} cores",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "libraries": ", ".join(f"{name} {version(name)}" for name in LIBRARIES),
        "load when it began": f"{os.getloadavg()[0]:.1f}",
    }


def processor() -> str:
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", info.read_text()) if info.exists() else None
    return found[1] if found else platform.processor() or "unknown processor"
