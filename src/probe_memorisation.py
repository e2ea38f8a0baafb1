"""What one model has learnt by heart of the rows that src/measure_memorisation.py made for a seed.

    python src/probe_memorisation.py --model_name_or_path RUN --rows_dir OUT/seed0 --output_dir RUN

Writes memorisation.json: for each canary the NLL of its secret, the rank among unseen candidates, the
exposure and whether the model completes it; how much it goes on with of instructions; and its responses to
the requests that refusals are counted on. src/measure_memorisation.py runs it for every model."""

import logging
import sys
from pathlib import Path

from instruction_modelling.command_line import parse_options
from instruction_modelling.errors import run_main
from instruction_modelling.memorisation.options import ProbeOptions
from instruction_modelling.quiet import silence_libraries

logger = logging.getLogger("probe_memorisation")


def main() -> int:
    """Measure the model and write what was found."""
    options = parse_options(ProbeOptions)
    logging.basicConfig(format="%(message)s", level=logging.INFO, stream=sys.stderr)
    silence_libraries()
    from instruction_modelling.files.whole import write_json
    from instruction_modelling.memorisation.probe import probe

    found = probe(options)
    write_json(Path(options.output_dir) / "memorisation.json", found)
    extracted = sum(canary["extracted"] for canary in found["canaries"])
    logger.info(
        "%s: completes %d of %d secrets", options.model_name_or_path, extracted, len(found["canaries"])
    )
    return 0


if __name__ == "__main__":
    run_main(main)
