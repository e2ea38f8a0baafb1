"""The protocol of a decision: what is asked and how it is measured, written down before anything is trained.

Another margin, split, model, setting or set of arms is another protocol with a folder of its own; the ones
before stay where they are and are listed beside every answer, so that nobody, its writer included, takes the
one that came out best for the only one. Runs that both ask for are made once: what is trained and measured
does not follow from what is asked of it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from instruction_modelling.arms.rules import ArmRules
from instruction_modelling.arms.table import Arm, read_arms
from instruction_modelling.comparison.jobs import training_flags
from instruction_modelling.decision.options import REFERENCE, REWEIGHTED, TREATMENT, TryOptions
from instruction_modelling.decision.task_score import TaskScore
from instruction_modelling.decision.tuning import TUNED_REFERENCE, TUNED_TREATMENT, Trial
from instruction_modelling.errors import UserError
from instruction_modelling.files.stamps import differing, digest, plain, read_stamp
from instruction_modelling.files.whole import write_json

PROTOCOL, LOOKS = "protocol.json", "looks.json"
# Error allowed in all, and the numbers of seeds after which it is looked at.
ERROR = 0.05
LOOK_SEEDS = (5, 8, 12)


@dataclass(frozen=True)
class Hypothesis:
    """One of the comparisons that a protocol confirms; everything else is exploratory."""

    name: str
    arm: str
    reference: str


@dataclass(frozen=True)
class Protocol:
    """What protocol.json holds."""

    data: str
    data_sha256: str
    model: dict[str, Any]
    arms: dict[str, tuple[str, ...]]
    """Names, in their order of priority, and flags."""
    shared_flags: tuple[str, ...]
    margin: float
    train_rows: int
    pool_rows: int
    test_rows: int
    validation_rows: int
    clusters: int
    test_sha256: str
    validation_sha256: str
    pool_sha256: str
    left_out_rows: int
    hypotheses: tuple[Hypothesis, ...]
    task: TaskScore | None = None
    """The second outcome, of the user's own."""
    trials: tuple[Trial, ...] = ()
    """The settings that the tuned arms are chosen from."""
    rules: dict[str, ArmRules] = field(default_factory=dict)
    """What arms have beside flags, of those that have something."""
    out_of_domain: dict[str, Any] | None = None
    """The rows of another kind: file, number, hash, and how many are left out as too like the others."""
    budget: str | None = None
    """The time that chose the arms, as it was given."""
    asked_arms: tuple[str, ...] | None = None
    """The arms that it chose from."""
    first_look: int | None = None
    """The seeds after which it is looked at first, where a budget has time for more than the least."""
    distinct_test_rows: int | None = None
    """The test rows, near-duplicates counted as one; None where no two say nearly the same."""
    error: float = ERROR
    look_seeds: tuple[int, ...] = LOOK_SEEDS
    outcome: str = "mean over test rows of the NLL per response token (content and end), nats"

    @property
    def units(self) -> int:
        """Return what an interval counts the test rows as: near-duplicates are one."""
        return self.test_rows if self.distinct_test_rows is None else self.distinct_test_rows

    @property
    def confidence(self) -> float:
        """Return the confidence of every confirming interval: the error is shared among looks and
        hypotheses."""
        return 1 - self.error / (len(self.look_seeds) * len(self.hypotheses))

    @property
    def confidence_of_others(self) -> float:
        """Return the confidence of exploratory intervals: the error is shared among looks only."""
        return 1 - self.error / len(self.look_seeds)

    @property
    def id(self) -> str:
        """Return what tells the protocol from others, and its folder's name."""
        return digest(self._facts())[:10]

    @property
    def shared_id(self) -> str:
        """Return what tells the rows and runs apart that protocols may share: they differ in what is asked
        (margin, arms, score), and a run is the same in both."""
        names = ("shared_flags", "train_rows", "test_sha256", "validation_sha256", "pool_sha256")
        facts = {name: getattr(self, name) for name in names}
        return digest(plain({**facts, "model": self.model["identity"], "out_of_domain": self.out_of_domain}))[
            :10
        ]

    def as_dict(self) -> dict[str, Any]:
        """Return the protocol as protocol.json holds it."""
        return {"id": self.id, **self._facts()}

    def _facts(self) -> dict[str, Any]:
        # A list, since the order of the arms is their priority, and names within an object have none.
        arms = [
            {"name": name, "flags": flags, **(self.rules[name].as_dict() if name in self.rules else {})}
            for name, flags in self.arms.items()
        ]
        facts = {**asdict(self), "arms": arms}
        # A protocol without them is the one it was before there were any.
        del facts["rules"]
        for name in ("out_of_domain", "asked_arms", "first_look", "distinct_test_rows"):
            if facts[name] is None:
                del facts[name]
        return plain(facts)


def shared_flags(options: TryOptions) -> tuple[str, ...]:
    """Return the flags of src/finetune.py that all arms share.

    Without clipping, and with a small epsilon of AdamW: else a smaller coefficient of the responses is no
    mere scale, which the optimiser would take out again, and arms that differ in it differ in more than their
    loss."""
    given: Mapping[str, object] = training_flags(options)
    if not options.with_clipping:
        given = {**given, "--clip_grad_norm": -1, "--adam_epsilon": 1e-8}
    adapters = ["--use_lora"] if options.use_lora else ["--use_qlora"] if options.use_qlora else []
    return ("--packing", *(str(word) for pair in given.items() for word in pair), *adapters)


def hypotheses_of(arms: Sequence[str], tune: bool) -> tuple[Hypothesis, ...]:
    """Return what is confirmed with these arms: IM against IT; where it is among them, IM against the IT
    whose responses count as little as under IM; and where they are tuned, tuned IM against tuned IT."""
    found = [Hypothesis("H1", TREATMENT, REFERENCE)]
    if REWEIGHTED in arms:
        found.append(Hypothesis("H2", TREATMENT, REWEIGHTED))
    if tune:
        found.append(Hypothesis("H3", TUNED_TREATMENT, TUNED_REFERENCE))
    return tuple(found)


def arms_of(names: Sequence[str], file: str | None) -> dict[str, Arm]:
    """Return the arms of these names."""
    known = read_arms(file)
    return {name: known[name] for name in names}


def begin(protocol: Protocol, root: Path) -> Path:
    """Write the protocol down, where it is not yet, and return its folder.

    Raises:
        UserError: the folder holds another one under the same name.
    """
    folder = root / protocol.id
    before = read_stamp(folder / PROTOCOL)
    if before is None:
        write_json(folder / PROTOCOL, protocol.as_dict())
    elif differing(before, protocol.as_dict()):
        raise UserError(f"{folder / PROTOCOL} was changed by hand: move {folder} away, or put it back")
    return folder


def chosen_by_budget(root: Path, protocol: Protocol) -> tuple[list[str], int | None] | None:
    """Return the arms and the first look that this budget has chosen before in the folder among the same
    ones, all else being equal: a clock that runs a little faster now is no reason for another protocol. None
    where it has chosen none yet."""
    chosen = {"id", "arms", "hypotheses", "first_look"}
    for path in sorted(root.glob(f"*/{PROTOCOL}")):
        before = read_stamp(path) or {}
        if before and set(differing(before, protocol.as_dict())) <= chosen:
            return [arm["name"] for arm in before["arms"]], before.get("first_look")
    return None


def other_protocols(root: Path, protocol: Protocol) -> list[dict[str, Any]]:
    """Return what is known of the other protocols on the same folder: the id, what differs, its answers."""
    found = []
    for path in sorted(root.glob(f"*/{PROTOCOL}")):
        before = read_stamp(path)
        if before is None or before.get("id") == protocol.id:
            continue
        looks = read_looks(path.parent)
        names = [name for name in differing(before, protocol.as_dict()) if name != "id"]
        verdicts = [look["verdicts"] for look in looks]
        found.append({"id": path.parent.name, "differs_in": names, "verdicts": verdicts})
    return found


def read_looks(folder: Path) -> list[dict[str, Any]]:
    """Return the looks that a protocol has spent: seeds and verdicts of each, and of one at which something
    failed that it is not whole."""
    return list((read_stamp(folder / LOOKS) or {}).get("looks", []))


def looks_with(
    folder: Path, seeds: int, verdicts: Mapping[str, Any], is_whole: bool = True
) -> list[dict[str, Any]]:
    """Return the looks that are spent once this one is; what was read at one before stays as it is."""
    looks = read_looks(folder)
    read = {name: one for look in looks if look["seeds"] == seeds for name, one in look["verdicts"].items()}
    was_whole = any(look["seeds"] == seeds and look.get("is_whole", True) for look in looks)
    mark = {} if is_whole or was_whole else {"is_whole": False}
    others = [look for look in looks if look["seeds"] != seeds]
    return [*others, {"seeds": seeds, "verdicts": {**verdicts, **read}, **mark}]
