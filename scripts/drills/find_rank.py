"""Print the process id of a training process by its rank.

python scripts/drills/find_rank.py RANK PROCESS..."""

import sys
from pathlib import Path

rank, *processes = sys.argv[1:]
for process in processes:
    try:
        environment = Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
        command = Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        continue
    if f"RANK={rank}".encode() in environment and b"src/finetune.py" in command:
        print(process)
        break
else:
    sys.exit(f"no process of rank {rank} among {len(processes)}")
