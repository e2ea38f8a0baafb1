"""What training costs past one machine, by a stated model, and hours by data set, model and hardware. Nothing
here is measured on a GPU.

    python benchmarks/scale_out.py
    python benchmarks/scale_out.py --link_gbs 20 --peak_tflops 312 --cpu_rate 250

ZeRO-3 and FSDP2 on g GPUs in machines of 8, a model of P parameters in L layers of width d, rows of s tokens,
and a micro-batch of t tokens on each GPU:

    computing  t (6 P + 6 L d s) operations at `utilisation` of the peak, a third more where activations do
               not fit and are computed again
    moving     weights in bfloat16 (2 P bytes), gathered for the forward and again for the backward pass;
               gradients, reduced and scattered: 4 P bytes under FSDP2 (float32, as training/sharding sets
               it), 2 P under ZeRO-3; each times (g - 1) / g, over a GPU's slowest link: to the switch of
               its machine, or its part of the network between machines
    waiting    3 (L + 1) collectives, each as long as a message takes around the ring
    whole      max(computing, moving + waiting) + (1 - overlap) min(computing, moving + waiting)

Every micro-batch moves the whole model, so a step of B rows that gives a GPU less than t tokens leaves it
waiting. Memory is the sharded state, two gathered layers and one micro-batch's activations."""

import sys
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:1] = [str(ROOT), str(ROOT / "src")]

from instruction_modelling.command_line import parse_options  # noqa: E402
from instruction_modelling.errors import run_main  # noqa: E402
from instruction_modelling.runs.estimates import (  # noqa: E402
    KNOWN,
    STATE_BYTES,
    Hardware,
    ModelSize,
    hours_in_words,
    operations_per_token,
    training_hours,
)
from instruction_modelling.sweeps.data_size import tokens_in  # noqa: E402

MODELS = {"1B": "llama-3.2-1b", "7B": "llama-2-7b", "70B": "llama-3.1-70b"}
BACKENDS = ("zero3", "fsdp2")
# By their files; rows and tokens are those of the paper's Table 5.
DATA_SETS = {"LIMA": "lima_data", "AlpaGasus Dolly 3k": "alpagasus_3k_dolly", "Tulu V2": "tulu_v2_data"}
# Peak in bfloat16 without sparsity, 10^12 operations a second; memory in GB: the makers' data sheets.
GPUS = {"A100 80 GB": (312.0, 80.0), "H100 80 GB": (989.0, 80.0)}


@dataclass
class ScaleOptions:
    """Scale."""

    peak_tflops: float = 989.0
    """Peak of a GPU in bfloat16, TFLOP/s (default: an H100's)."""
    utilisation: float = 0.42
    """Share of it that one GPU reaches where nothing is moved: LLM-Foundry's published 1B at 2,048 tokens."""
    memory_gb: float = 80.0
    """Memory of a GPU."""
    nvlink_gbs: float = 360.0
    """GB/s of a GPU to the others of its machine, one way (80 % of an H100's 450)."""
    link_gbs: float = 40.0
    """GB/s of a GPU to other machines, one way (80 % of 400 Gbit/s a GPU)."""
    nvlink_us: float = 2.0
    """Microseconds of a message between two GPUs of a machine."""
    link_us: float = 10.0
    """Microseconds of a message between two machines."""
    overlap: float = 0.9
    """Part of the shorter of computing and moving that hides behind the longer."""
    tokens: float = 8192.0
    """Tokens of a GPU's micro-batch."""
    tokens_per_row: float = 512.0
    """Tokens of a row, on average (the hours take each data set's own)."""
    batch_size: int = 128
    """Examples a step."""
    cpu_rate: float = 326.0
    """Tokens a second of one CPU core that trains SmolLM2-135M (IM, bf16): what benchmarks/run.py measures
    (tokens over seconds of a processor; docs/performance.md)."""

    def check(self) -> list[str]:
        """Return every problem of the options, in words."""
        problems = [
            f"--{name} {value}: must be more than 0"
            for name, value in vars(self).items()
            if name != "overlap" and not value > 0
        ]
        return problems + ([] if 0 <= self.overlap <= 1 else [f"--overlap {self.overlap}: from 0 to 1"])


@dataclass(frozen=True)
class MicroBatchTime:
    """Seconds of one micro-batch on each of g GPUs, and how it compares to one GPU that moves nothing."""

    computing: float
    moving: float
    waiting: float
    whole: float

    @property
    def efficiency(self) -> float:
        """Return the part of the time that is computed in."""
        return self.computing / self.whole


def bytes_moved(size: ModelSize, gpus: int, backend: str) -> float:
    """Return the bytes that each GPU sends in a micro-batch: two gathers of the weights and one reduction of
    the gradients, around a ring."""
    gradient = 4 if backend == "fsdp2" else 2
    return (2 * 2 + gradient) * size.parameters * (gpus - 1) / gpus


def ring_seconds(gpus: int, options: ScaleOptions) -> float:
    """Return how long a message takes once around the ring: within machines of 8, and between them."""
    machines = -(-gpus // 8)
    within = gpus - machines
    between = machines if machines > 1 else 0
    return (within * options.nvlink_us + between * options.link_us) * 1e-6


def recomputing(size: ModelSize, gpus: int, backend: str, options: ScaleOptions) -> float:
    """Return what the operations are multiplied by: 4/3 where activations have to be computed again."""
    return 1.0 if memory_gb(size, gpus, backend, options, False) <= options.memory_gb else 4 / 3


def micro_batch_time(size: ModelSize, gpus: int, backend: str, options: ScaleOptions) -> MicroBatchTime:
    """Return what a micro-batch takes by the model at the head of this file."""
    operations = options.tokens * operations_per_token(size, options.tokens_per_row)
    operations *= recomputing(size, gpus, backend, options)
    computing = operations / (options.peak_tflops * 1e12 * options.utilisation)
    speed = options.nvlink_gbs if gpus <= 8 else options.link_gbs
    moving = bytes_moved(size, gpus, backend) / (speed * 1e9)
    waiting = 3 * (size.layers + 1) * ring_seconds(gpus, options) if gpus > 1 else 0.0
    longer, shorter = max(computing, moving + waiting), min(computing, moving + waiting)
    return MicroBatchTime(computing, moving, waiting, longer + (1 - options.overlap) * shorter)


def step_time(size: ModelSize, gpus: int, backend: str, options: ScaleOptions) -> tuple[float, float]:
    """Return the seconds of a step of `batch_size` examples, and the part of its micro-batches' room that is
    filled."""
    tokens = options.batch_size * options.tokens_per_row
    micro_batches = max(1, -(-tokens // (gpus * options.tokens)))
    fill = tokens / (micro_batches * gpus * options.tokens)
    # What is not filled is not computed, and the model is moved all the same.
    filled = replace(options, tokens=options.tokens * fill)
    return micro_batches * micro_batch_time(size, gpus, backend, filled).whole, fill


def memory_gb(size: ModelSize, gpus: int, backend: str, options: ScaleOptions, checkpointing: bool) -> float:
    """Return the GB of a GPU: its part of weights, gradients and AdamW's states, one layer gathered, and the
    activations of a micro-batch (with `checkpointing` a layer's input each, and one layer's whole)."""
    # FSDP2 keeps no bfloat16 copy beside its float32 shard.
    state = (STATE_BYTES if backend == "zero3" else STATE_BYTES - 2) * size.parameters / gpus
    layers = 1 if checkpointing else size.layers
    kept = layers * size.activation_bytes(autocast=backend == "fsdp2") + (
        4 * size.width * size.layers if checkpointing else 0
    )
    gathered = 2 * 2 * size.parameters / size.layers
    return (state + gathered + options.tokens * kept) / 1e9


def table(options: ScaleOptions) -> str:
    """Return the tables past one machine in Markdown."""
    out = [
        "| model | GPUs | backend | moved, GB | computing, ms | moving + waiting, ms | efficiency | "
        f"tokens/s, all | memory, GB | a step of {options.batch_size} examples, ms | its fill |",
        "|---|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, known in MODELS.items():
        size = KNOWN[known]
        for gpus in (8, 64, 512):
            for backend in BACKENDS:
                time = micro_batch_time(size, gpus, backend, options)
                seconds, fill = step_time(size, gpus, backend, options)
                plain = memory_gb(size, gpus, backend, options, False)
                checkpointed = memory_gb(size, gpus, backend, options, True)
                memory = (
                    f"{plain:.0f}" if plain <= options.memory_gb else f"{checkpointed:.0f} (checkpointing)"
                )
                if checkpointed > options.memory_gb:
                    memory += ", too much"
                out.append(
                    f"| {name} | {gpus} | {backend} | {bytes_moved(size, gpus, backend) / 1e9:.1f} | "
                    f"{time.computing * 1e3:,.0f} | {(time.moving + time.waiting) * 1e3:,.0f} | "
                    f"{time.efficiency:.0%} | {gpus * options.tokens / time.whole:,.0f} | {memory} | "
                    f"{seconds * 1e3:,.0f} | {fill:.1%} |"
                )
    return "\n".join(out)


def fits(size: ModelSize, gpus: int, memory: float, options: ScaleOptions) -> bool:
    """Return whether full tuning fits so many GPUs of this memory in GB, with activations computed again."""
    return memory_gb(size, gpus, "fsdp2", options, True) <= memory


def cpu_hours(size: ModelSize, tokens: float, tokens_per_row: float, options: ScaleOptions) -> float:
    """Return the hours of one core: its measured rate, by the operations of this model and of that one."""
    measured = operations_per_token(KNOWN["smollm2-135m"], tokens_per_row)
    rate = options.cpu_rate * measured / operations_per_token(size, tokens_per_row)
    return tokens / rate / 3600


def costs(options: ScaleOptions) -> str:
    """Return hours of one epoch by data set, model and hardware, in Markdown."""
    columns = [(name, gpus) for name in GPUS for gpus in (1, 8, 64)]
    gpu_names = " | ".join(f"{gpus} x {name}" for name, gpus in columns)
    out = [f"| one epoch of | model | 1 CPU core | {gpu_names} |", "|---|---|--:|" + "--:|" * len(columns)]
    for data, stem in DATA_SETS.items():
        rows, tokens = tokens_in(Path("not there") / f"{stem}.jsonl", 2048)
        for name, known in {"135M": "smollm2-135m", **MODELS}.items():
            size = KNOWN[known]
            cells = [hours_in_words(cpu_hours(size, tokens, tokens / rows, options))]
            for gpu, gpus in columns:
                tflops, memory = GPUS[gpu]
                hardware = Hardware(gpus, tflops, options.utilisation, memory)
                hours = training_hours(size, tokens, tokens / rows, hardware)
                own = replace(options, peak_tflops=tflops, memory_gb=memory, tokens_per_row=tokens / rows)
                hours *= recomputing(size, gpus, "fsdp2", own)
                hours /= micro_batch_time(size, gpus, "fsdp2", own).efficiency
                cells.append(hours_in_words(hours) if fits(size, gpus, memory, options) else "no room")
            out.append(f"| {data} ({tokens / 1e6:.3g} M tokens) | {name} | " + " | ".join(cells) + " |")
    return "\n".join(out)


def main() -> None:
    """Print both tables."""
    options = parse_options(ScaleOptions)
    print("Past one machine (modelled, not measured)\n")
    print(table(options))
    print(
        f"\nHours of full tuning: a core by its measured rate of {options.cpu_rate:g} tokens a second on "
        f"SmolLM2-135M; GPUs by the "
        f"model above under FSDP2 (modelled, not measured)\n"
    )
    print(costs(options))


if __name__ == "__main__":
    run_main(main)
