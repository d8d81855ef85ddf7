"""Which machine this is, for those who read the numbers."""

import os
import platform
import re
import subprocess
from pathlib import Path


def facts(folders: dict[str, Path]) -> dict[str, str]:
    """Processor, memory, kernel, Python and the file systems of these folders."""
    processor = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    memory = re.search(r"MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text())
    return {
        "processor": processor.group(1) if processor else platform.machine(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{int(memory.group(1)) / 2**20:.0f} GiB" if memory else "?",
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        **{f"files on {name}": file_system(folder) for name, folder in folders.items()},
    }


def file_system(folder: Path) -> str:
    """Its type and how it is mounted."""
    done = subprocess.run(
        ["findmnt", "--noheadings", "--output", "FSTYPE,OPTIONS", "--target", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    return " ".join(done.stdout.split()) or "?"


def load() -> float:
    """How many processes want to run, on average over the last minute."""
    return os.getloadavg()[0]
