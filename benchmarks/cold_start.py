"""Wall time of whole commands in fresh processes: what a person waits for at the prompt.

    python benchmarks/cold_start.py

Times are medians of five runs after one warm-up, in seconds, each beside a bare `import numpy` of the same round,
since machines differ and are busy. The sample is indexed first, into a storage root that is thrown away.
"""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time

COMMANDS = {
    "orchestrate --help": ["--help"],
    "orchestrate check": ["check"],
    "orchestrate run ... pipeline=bm25": ["run", "what causes glaucoma?", "pipeline=bm25"],
    "orchestrate run ... +scenario=low_latency": ["run", "what causes glaucoma?", "+scenario=low_latency"],
}
ROUNDS = 5


def seconds(command: list[str], folder: str) -> float:
    """Wall time of one process."""
    environment = {**os.environ, "ORCHESTRATOR_HOME": f"{folder}/home", "HF_HUB_OFFLINE": "1"}
    started = time.perf_counter()
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    return time.perf_counter() - started


def main() -> None:
    orchestrate = [sys.executable, "-m", "orchestrator"]
    with tempfile.TemporaryDirectory() as folder:
        print(f"Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} cores, median of {ROUNDS}")
        first = seconds([*orchestrate, "index", "+scenario=low_latency"], folder)
        print(f"{first:7.2f} s  orchestrate index +scenario=low_latency (first time: export, embed, index)")
        for name, words in COMMANDS.items():
            seconds([*orchestrate, *words], folder)
            rounds = [
                (seconds([*orchestrate, *words], folder), seconds([sys.executable, "-c", "import numpy"], folder))
                for _ in range(ROUNDS)
            ]
            median = statistics.median(took for took, _ in rounds)
            ratio = statistics.median(took / bare for took, bare in rounds)
            print(f"{median:7.2f} s  {name}  ({ratio:.1f} x import numpy)")


if __name__ == "__main__":
    main()
