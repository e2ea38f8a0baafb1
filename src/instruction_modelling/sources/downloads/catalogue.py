"""Every training set of the paper and of the Tülu mixtures: where its files are, what they hold, on which
terms.

Addresses without a commit in them are branches, whose files may change; the hash of what was fetched is then
recorded. Rows are those of the published set after conversion: of the paper's sets as its Table 5 counts
them, of the parts of Tülu V1 as Wang et al. 2023 (arXiv 2306.04751, Table 1) do."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from instruction_modelling.errors import UserError

AUTHORS = "https://raw.githubusercontent.com/ZhengxiangShi/InstructionModelling/325b77e256d44e6280ba123a8781b26ef85ec362/data/"
ALPAGASUS = "https://raw.githubusercontent.com/gpt4life/alpagasus/main/data/filtered/"
BEAKER = "https://beaker.org/api/v3/datasets/"
HUB = "https://huggingface.co/datasets/"
_LESS = "adam_sim_trainp0.05_seed3_p0.05"
_BY_NC = "CC BY-NC 4.0"


@dataclass(frozen=True)
class RawFile:
    """A file to fetch, and what is to be taken out of it."""

    url: str
    path: str
    """Where it goes, below the set's folder."""
    sha256: str | None = None
    size: int | None = None
    listed: int | None = None
    """Bytes as its host lists them, rounded: shown, not checked."""
    published: str | None = None
    """The sha256 its host has shown. What a branch gives may change, so another one is said, not refused."""
    members: tuple[str, ...] = ()
    """Of a zip file: patterns of what is taken out (default: it is used as it is)."""
    flat: bool = False
    """Whether members go into the set's folder itself; else below it, without the archive's one top
    folder."""


@dataclass(frozen=True)
class DataSet:
    """A training set."""

    name: str
    files: tuple[RawFile, ...]
    rows: int | None
    licence: str
    source: str
    """A page about it."""
    folder: str
    """Of its files: `` for the processed ones, alpagasus/..., raw_train/..."""
    formats: tuple[str, ...] = ()
    """What its files are converted to: names of `source_formats.CONVERTERS`, or the mixture's own."""
    parts: tuple[str, ...] = ()
    """Of a mixture: the sets it is made of."""
    access: str | None = None
    """Where access is granted, if not everybody has it."""
    words: tuple[float, float] | None = None
    """Mean words of an instruction and of an output (the paper's Table 5)."""
    instead: str | None = None
    """Another set with nearly the same rows, for those without access."""

    def size(self) -> int | None:
        """Bytes to fetch, where known; of files that are not checked for their size, about."""
        sizes = [file.size or file.listed for file in self.files]
        return sum(size for size in sizes if size) if all(sizes) and sizes else None


def _processed(
    name: str,
    rows: int,
    licence: str,
    sha256: str | None = None,
    size: int | None = None,
    file: str | None = None,
) -> DataSet:
    raw = RawFile(f"{AUTHORS}{file or name}.jsonl", f"{file or name}.jsonl", sha256, size)
    return DataSet(name, (raw,), rows, licence, "https://github.com/ZhengxiangShi/InstructionModelling", "")


def _alpagasus(
    name: str,
    folder: str,
    rows: int,
    licence: str,
    converted: str,
    sha256: str | None = None,
    size: int | None = None,
) -> DataSet:
    return DataSet(
        name,
        (RawFile(f"{ALPAGASUS}{name}.json", f"{name}.json", sha256, size),),
        rows,
        licence,
        "https://github.com/gpt4life/alpagasus",
        f"alpagasus/{folder}",
        (converted,),
    )


def _raw(
    name: str,
    rows: int | None,
    licence: str,
    source: str,
    *files: RawFile,
    formats: Sequence[str] | None = None,
    folder: str | None = None,
    access: str | None = None,
    instead: str | None = None,
) -> DataSet:
    return DataSet(
        name,
        files,
        rows,
        licence,
        source,
        f"raw_train/{folder or name}",
        tuple(formats or (name,)),
        access=access,
        instead=instead,
    )


def _github(repository: str, branch: str, path: str) -> RawFile:
    return RawFile(f"https://raw.githubusercontent.com/{repository}/{branch}/{path}", path.rpartition("/")[2])


_SHAREGPT = tuple(
    RawFile(
        f"{HUB}anon8231489123/ShareGPT_Vicuna_unfiltered/resolve/main/HTML_cleaned_raw_dataset/{name}",
        name,
        listed=listed,
        published=published,
    )
    for name, listed, published in (
        (
            "sg_90k_part1_html_cleaned.json",
            551_420_693,
            "183c744455c6be491dba42ffee41afdae06d1d79adbcd86b7fef30d2a3206f86",
        ),
        ("sg_90k_part2_html_cleaned.json", 548_000_000, None),
    )
)
_SHAREGPT_PAGE = HUB + "anon8231489123/ShareGPT_Vicuna_unfiltered"

PAPER = (
    "lima_data",
    "alpagasus_3k_dolly",
    "alpagasus_9k_dolly",
    "alpagasus_claude_t45_alpaca",
    "tydiqa",
    "mmlu_chat",
    "bbh_icl",
)
ALPAGASUS_SETS = ("dolly_3k", "chatgpt_9k", "claude_t45")

_SETS = (
    _processed(
        "lima_data",
        1030,
        "CC BY-NC-SA (stricter where a source is)",
        "c15ce7cacc2696192727351f4392dc059608dc5a96d69bb69f8ca461725c15b1",
        3_048_271,
    ),
    _processed(
        "alpagasus_3k_dolly",
        2996,
        "CC BY-SA 3.0 (Dolly)",
        "28b89ba107e6776179515990d12a231b1a209ee360e21f365341033d8fad9f23",
        2_478_365,
    ),
    # From Alpaca, not Dolly, whatever its name in the paper: AlpaGasus' README and its rows' shape say so.
    _processed("alpagasus_9k_dolly", 9229, f"{_BY_NC} (Stanford Alpaca)"),
    _processed("alpagasus_claude_t45_alpaca", 5305, f"{_BY_NC} (Stanford Alpaca)"),
    _processed("tydiqa", 13_533, "of Flan v2, CoT, Dolly and OASST1", file=f"tydiqa_{_LESS}"),
    _processed("mmlu_chat", 13_533, "of Flan v2, CoT, Dolly and OASST1", file=f"mmlu-chat_{_LESS}"),
    _processed("bbh_icl", 13_533, "of Flan v2, CoT, Dolly and OASST1", file=f"bbh-icl_{_LESS}"),
    _alpagasus(
        "dolly_3k",
        "dolly",
        2996,
        "CC BY-SA 3.0 (Dolly)",
        "alpagasus_3k_dolly",
        "cb8d16e85ec217a53587c96596a1e8971b8d72a2fd9d5bc23a2dd3d57b59eeea",
        2_315_006,
    ),
    _alpagasus("chatgpt_9k", "dolly", 9229, f"{_BY_NC} (Stanford Alpaca)", "alpagasus_9k_dolly"),
    _alpagasus("claude_t45", "alpaca", 5305, f"{_BY_NC} (Stanford Alpaca)", "alpagasus_claude_t45_alpaca"),
    _raw(
        "less",
        270_679,
        "of Flan v2, CoT, Dolly and OASST1",
        HUB + "princeton-nlp/less_data",
        RawFile(
            HUB + "princeton-nlp/less_data/resolve/main/less-data.zip",
            "less-data.zip",
            members=("*train/processed/*_data.jsonl",),
            flat=True,
        ),
    ),
    _raw(
        "super_ni",
        96_913,
        "Apache-2.0",
        "https://github.com/allenai/natural-instructions",
        RawFile(
            "https://github.com/allenai/natural-instructions/archive/refs/heads/master.zip",
            "master.zip",
            members=("*/tasks/*.json", "*/splits/xlingual/train_tasks.txt"),
        ),
    ),
    _raw(
        "cot",
        100_000,
        "Apache-2.0",
        "https://github.com/google-research/FLAN",
        RawFile(BEAKER + "01GXZ52K2Q932H6KZY499A7FE8/files/cot_zsopt.jsonl", "cot_zsopt.jsonl"),
        RawFile(BEAKER + "01GXZ51ZV283RAZW7J3ECM4S58/files/cot_fsopt.jsonl", "cot_fsopt.jsonl"),
    ),
    _raw(
        "flan_v2",
        100_000,
        "Apache-2.0",
        "https://github.com/google-research/FLAN",
        RawFile(
            BEAKER + "01GZTTS2EJFPA83PXS4FQCS1SA/files/flan_v2_resampled_100k.jsonl",
            "tulu_v1_resampled_flan_100k.jsonl",
        ),
        RawFile(
            BEAKER + "01HBS0N5ZSDF5AECA9VMB1RKXQ/files/flan_v2_resampled_50k.jsonl",
            "tulu_v2_resampled_flan_50k.jsonl",
        ),
    ),
    _raw(
        "dolly",
        15_011,
        "CC BY-SA 3.0",
        HUB + "databricks/databricks-dolly-15k",
        RawFile(
            HUB + "databricks/databricks-dolly-15k/resolve/main/databricks-dolly-15k.jsonl",
            "databricks-dolly-15k.jsonl",
            listed=13_100_000,
            published="2df9083338b4abd6bceb5635764dab5d833b393b55759dffb0959b6fcbf794ec",
        ),
    ),
    _raw(
        "self_instruct",
        82_439,
        "Apache-2.0",
        "https://github.com/yizhongw/self-instruct",
        _github(
            "yizhongw/self-instruct", "main", "data/gpt3_generations/batch_221203/all_instances_82K.jsonl"
        ),
    ),
    _raw(
        "unnatural_instructions",
        68_478,
        "MIT",
        "https://github.com/orhonovich/unnatural-instructions",
        RawFile(
            "https://raw.githubusercontent.com/orhonovich/unnatural-instructions/main/data/core_data.zip",
            "core_data.zip",
            members=("core_data.jsonl", "*/core_data.jsonl"),
            flat=True,
        ),
    ),
    _raw(
        "stanford_alpaca",
        52_002,
        _BY_NC,
        "https://github.com/tatsu-lab/stanford_alpaca",
        _github("tatsu-lab/stanford_alpaca", "main", "alpaca_data.json"),
    ),
    _raw(
        "code_alpaca",
        20_022,
        _BY_NC,
        "https://github.com/sahil280114/codealpaca",
        _github("sahil280114/codealpaca", "master", "data/code_alpaca_20k.json"),
    ),
    _raw(
        "gpt4_alpaca",
        52_002,
        _BY_NC,
        "https://github.com/Instruction-Tuning-with-GPT-4/GPT-4-LLM",
        _github("Instruction-Tuning-with-GPT-4/GPT-4-LLM", "main", "data/alpaca_gpt4_data.json"),
    ),
    _raw(
        "baize",
        210_311,
        "GPL-3.0",
        "https://github.com/project-baize/baize-chatbot",
        *(
            _github("project-baize/baize-chatbot", "main", f"data/{part}_chat_data.json")
            for part in ("alpaca", "medical", "quora", "stackoverflow")
        ),
    ),
    _raw(
        "oasst1",
        34_795,
        "Apache-2.0",
        HUB + "OpenAssistant/oasst1",
        RawFile(
            HUB + "OpenAssistant/oasst1/resolve/main/2023-04-12_oasst_ready.trees.jsonl.gz",
            "2023-04-12_oasst_ready.trees.jsonl.gz",
            listed=34_100_000,
            published="2a9a8fd343e9b28e04a895a669d3253f82d93e9c174d440199ae19d5fafbdff7",
        ),
    ),
    _raw("sharegpt", 168_864, "unclear; its page says Apache-2.0", _SHAREGPT_PAGE, *_SHAREGPT),
    _raw(
        "sharegpt_4096",
        None,
        "unclear; its page says Apache-2.0",
        _SHAREGPT_PAGE,
        *_SHAREGPT,
        folder="sharegpt",
    ),
    _raw(
        "lima",
        1030,
        "CC BY-NC-SA (stricter where a source is)",
        HUB + "GAIR/lima",
        RawFile(HUB + "GAIR/lima/resolve/main/train.jsonl", "train.jsonl"),
        access=HUB + "GAIR/lima",
        instead="lima_data",
    ),
    _raw(
        "wizardlm",
        30_000,
        "MIT, as its page says",
        HUB + "WizardLM/WizardLM_evol_instruct_V2_196k",
        RawFile(
            HUB + "WizardLM/WizardLM_evol_instruct_V2_196k/resolve/main/WizardLM_evol_instruct_V2_143k.json",
            "WizardLM_evol_instruct_V2_143k.json",
            listed=375_000_000,
        ),
    ),
    _raw(
        "open_orca",
        30_000,
        "MIT",
        HUB + "Open-Orca/OpenOrca",
        RawFile(
            HUB + "Open-Orca/OpenOrca/resolve/main/1M-GPT4-Augmented.parquet",
            "1M-GPT4-Augmented.parquet",
            listed=1_010_000_000,
            published="8d3f4a6e5980a5f163ca22be60336f8b47796d43836d984569f857ec56aadfd8",
        ),
    ),
    _raw(
        "science",
        7544,
        "see the source",
        "https://github.com/allenai/open-instruct",
        RawFile(BEAKER + "01HBS3G7TA8AT15C7RWTJAN66X/files/science_train.jsonl", "science_train.jsonl"),
    ),
    _raw(
        "hard_coded",
        None,
        "see the source",
        "https://github.com/allenai/open-instruct",
        RawFile(
            BEAKER + "01HBS14BBV16K45MMFSYJR86CA/files/hard_coded_examples.xlsx", "hard_coded_examples.xlsx"
        ),
    ),
    DataSet(
        "tulu_v2",
        (),
        326_181,
        "ODC-BY, and each part's own",
        "https://github.com/allenai/open-instruct",
        "raw_train",
        ("tulu_v2",),
        (
            "flan_v2",
            "cot",
            "oasst1",
            "lima",
            "gpt4_alpaca",
            "code_alpaca",
            "sharegpt_4096",
            "wizardlm",
            "open_orca",
            "science",
            "hard_coded",
        ),
    ),
    DataSet(
        "tulu_v1",
        (),
        None,
        "ODC-BY, and each part's own",
        "https://github.com/allenai/open-instruct",
        "raw_train",
        ("tulu_v1",),
        ("flan_v2", "cot", "oasst1", "dolly", "gpt4_alpaca", "code_alpaca", "sharegpt"),
    ),
)

_WORDS = {
    "lima_data": (41.72, 442.75),
    "alpagasus_3k_dolly": (43.83, 68.08),
    "alpagasus_9k_dolly": (16.79, 56.62),
    "alpagasus_claude_t45_alpaca": (17.48, 30.81),
    "tydiqa": (147.31, 25.13),
    "mmlu_chat": (216.95, 8.24),
    "bbh_icl": (200.60, 61.44),
    "stanford_alpaca": (18.59, 45.18),
    "code_alpaca": (22.34, 27.40),
    "wizardlm": (91.71, 258.35),
    "science": (1149.62, 46.46),
    "tulu_v2": (197.60, 343.56),
}

CATALOGUE: dict[str, DataSet] = {one.name: replace(one, words=_WORDS.get(one.name)) for one in _SETS}


def data_set(name: str) -> DataSet:
    """A set by its name.

    Raises:
        UserError: there is none of that name.
    """
    if name not in CATALOGUE:
        raise UserError(f"{name}: no such set; there are {', '.join(CATALOGUE)} (--list tells more)")
    return CATALOGUE[name]


def path_of(one: DataSet, file: RawFile, data_dir: Path) -> Path:
    """Where a file of a set goes."""
    return data_dir / one.folder / file.path
