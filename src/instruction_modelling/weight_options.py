"""The options that say where the loss falls."""

import math
from dataclasses import dataclass, field
from typing import Literal

from instruction_modelling.errors import UserError
from instruction_modelling.tokens.factors import TextFactors, TrainTurns
from instruction_modelling.tokens.patterns import read_loss_patterns
from instruction_modelling.tokens.weights import MaskStyle, WeightPolicy, idle_flags, read_loss_weights

Normalization = Literal["example", "token", "square", "sum"]
Denominator = Literal["nonzero", "response", "messages"]
# What decides about weights: given, they hold across the blocks of --use_lm_modelling too.
WEIGHT_FLAGS = (
    "use_lm_loss",
    "instruction_loss_weight",
    "response_loss_weight",
    "template_loss_weight",
    "loss_weights",
    "train_turns",
    "loss_patterns",
    "mask_style",
)


@dataclass
class WeightOptions:
    """Where the loss falls."""

    use_lm_loss: bool = False
    """Instruction Modelling: the same as --instruction_loss_weight 1."""
    instruction_loss_weight: float | None = None
    """Loss weight of system and user content (default: 0, or 1 with --use_lm_loss)."""
    response_loss_weight: float = 1.0
    """Loss weight of all that the assistant writes: contents, ends, openings, reasoning and tool calls."""
    template_loss_weight: float = 0.0
    """Loss weight of what the chat format writes: role headers, separators, default system prompts, tool
    lists."""
    loss_weights: str | None = field(default=None, metadata={"mapping": "pairs"})
    """Loss weights of single kinds of text, such as user=0.1,system=0,reasoning=0.5, which come before the
    flags above: of template, system, user, user_end, assistant, end, tool, tools, tool_calls, reasoning,
    opening."""
    train_turns: TrainTurns = "all"
    """Which of the assistant's turns are trained: all, first (up to the user's second turn), or last (after
    the last user's message, all of a tool loop); the others weigh 0. Other roles keep their weights."""
    loss_patterns: str | None = None
    """A JSON file of regular expressions and weights, {"pattern": weight}: the weight of what one matches in
    the assistant's contents and reasoning is multiplied by it. A token goes by its last character."""
    mask_style: MaskStyle | None = None
    """exact, or released: the labels of the authors' released code, token for token (default: by
    --recipe)."""
    loss_normalization: Normalization = "example"
    """example: mean over the step's examples of sum(w*nll)/n; token: sum(w*nll)/n over the step; square: sum
    over examples of sum(w*nll)/sqrt(n), divided by the sum of sqrt(n); sum: sum(w*nll)."""
    loss_denominator: Denominator = "nonzero"
    """What n counts: nonzero (tokens whose weight is not 0), response (response tokens whose weight is not 0)
    or messages (all that --use_lm_loss would train, whatever weighs 0 here: IT then weighs its responses as
    IM does)."""

    def instruction_weight(self) -> float:
        """Return the loss weight of instruction tokens, from the two options that set it."""
        if self.instruction_loss_weight is not None:
            return self.instruction_loss_weight
        return 1.0 if self.use_lm_loss else 0.0

    def policy(self) -> WeightPolicy:
        """Return the options as the rule that gives each token its weight."""
        return WeightPolicy(
            self.instruction_weight(),
            self.response_loss_weight,
            self.template_loss_weight,
            self.mask_style or "exact",
            read_loss_weights(self.loss_weights),
        )

    def text_factors(self) -> TextFactors:
        """Return what multiplies weights by turn and by pattern, with the file of patterns read.

        Raises:
            UserError: as `read_loss_patterns`.
        """
        return TextFactors(self.train_turns, read_loss_patterns(self.loss_patterns))

    def weight_problems(self) -> list[str]:
        """Return what is wrong with the weights, in words."""
        problems = []
        if self.use_lm_loss and self.instruction_loss_weight not in (None, 1.0):
            problems.append("--use_lm_loss means --instruction_loss_weight 1: give only one of them")
        for name in ("instruction_loss_weight", "response_loss_weight", "template_loss_weight"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                problems.append(f"--{name} {value}: a loss weight is a finite number, 0 or more")
        if self.loss_denominator == "messages" and self.loss_normalization != "example":
            problems.append(
                f"--loss_denominator messages divides each example by its own tokens: it goes with "
                f"--loss_normalization example, not {self.loss_normalization}"
            )
        for name in ("template_loss_weight", "loss_weights", "train_turns", "loss_patterns"):
            if self.mask_style == "released" and getattr(self, name) != getattr(WeightOptions, name):
                problems.append(
                    "--mask_style released (of --recipe released too) decides by masks of its own: leave out "
                    f"--{name}, or add --mask_style exact"
                )
        try:
            self.text_factors()
        except UserError as error:
            problems.append(str(error))
        return [*problems, *self._table_problems()]

    def _table_problems(self) -> list[str]:
        """Return what is wrong with --loss_weights, by itself or beside the flags for groups of kinds."""
        flags = ("use_lm_loss", "instruction_loss_weight", "response_loss_weight", "template_loss_weight")
        changed = {name: getattr(self, name) for name in flags}
        changed = {name: value for name, value in changed.items() if value != getattr(WeightOptions, name)}
        try:
            return idle_flags(read_loss_weights(self.loss_weights), changed)
        except UserError as error:
            return [str(error)]
