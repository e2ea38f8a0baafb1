"""Upload a finished run's model to a hub, with its card and how it was made, without anything of the data.

    HF_TOKEN=... python src/push_to_hub.py output/im OWNER/NAME

The repository is private unless --public is given. Rows that were left out, answers and the log stay here;
run.json, which is uploaded, has the options with the files' paths."""

from dataclasses import dataclass, field
from pathlib import Path

from instruction_modelling.command_line import parse_options
from instruction_modelling.errors import run_main
from instruction_modelling.option_rules import HUB_NAMES, is_hub_name
from instruction_modelling.quiet import silence_libraries


@dataclass
class PushOptions:
    """Options."""

    run: str = field(metadata={"positional": "RUN"})
    """The run's folder."""
    name: str = field(metadata={"positional": "OWNER/NAME"})
    """What the model is called on the hub, or on that of HF_ENDPOINT."""
    public: bool = False
    """Make the repository public, where it is made."""

    def check(self) -> list[str]:
        """Return every problem of the options, in words."""
        return [] if is_hub_name(self.name) else [f"{self.name}: {HUB_NAMES}"]


def main() -> int:
    """Read the options, upload the model, and say where it is."""
    options = parse_options(PushOptions)
    silence_libraries()
    from instruction_modelling.runs.publish import prepare, push

    prepare(options.name, options.public)
    print(f"pushed to {push(Path(options.run), options.name)}")
    return 0


if __name__ == "__main__":
    run_main(main)
