"""What a recipe decides where no flag does, and what of a run's recorded options it had decided."""

from collections.abc import Mapping
from typing import Any

RECIPES: dict[str, dict[str, Any]] = {
    "paper": {"mask_style": "exact", "adam_beta2": 0.98, "adam_epsilon": 1e-6, "clip_grad_norm": 1.0},
    "released": {"mask_style": "released", "adam_beta2": 0.999, "adam_epsilon": 1e-8, "clip_grad_norm": -1.0},
}
# What says how one start of a run is made: not taken over from its run.json by --config.
OF_ONE_START = ("dry_run", "overwrite_output", "overwrite_cache", "resume_from_checkpoint")


def choices_of(recipe: str, kl_term: bool) -> dict[str, Any]:
    """Return what a recipe decides, by the option's name; with a KL term, its estimator too."""
    estimator = {"kl_estimator": "released" if recipe == "released" else "exact"}
    return {**RECIPES[recipe], **(estimator if kl_term else {})}


def options_asked(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a run.json that say what the run was: without what its recipe decided, and
    without how one start of it was made."""
    options, given = record["options"], record.get("options_given", ())
    recipe = options.get("recipe", "paper")
    chosen = choices_of(recipe, kl_term=True) if recipe in RECIPES else {}
    return {
        name: value
        for name, value in options.items()
        if name not in OF_ONE_START and (name in given or name not in chosen or value != chosen[name])
    }
