"""Where should the loss fall? Instruction tuning with a loss weight for every token."""

import os

# Threads of torch that wait for each other spin by default. Beside other jobs each turn of a thread is then
# spent waiting for one that has none: a forward pass took 16 times as long. Read when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
