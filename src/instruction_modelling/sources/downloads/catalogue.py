"""The catalogue of training sets, the paper's and those of the Tülu mixtures: where their files are, what
they hold, on which terms.

Addresses without a commit in them are branches, whose files may change; the hash of what was fetched is then
recorded. Rows are those of the published set after conversion: of the paper's sets as its Table 5 counts
them, of the parts of Tülu V1 as Wang et al. 2023 (arXiv 2306.04751, Table 1) do."""

from dataclasses import replace
from typing import Any

from instruction_modelling.sources.downloads.published import HUB, PublishedSet, RawFile

AUTHORS = "https://raw.githubusercontent.com/ZhengxiangShi/InstructionModelling/325b77e256d44e6280ba123a8781b26ef85ec362/data/"
ALPAGASUS = "https://raw.githubusercontent.com/gpt4life/alpagasus/main/data/filtered/"
BEAKER = "https://beaker.org/api/v3/datasets/"
_LESS = "adam_sim_trainp0.05_seed3_p0.05"
_BY_NC = "CC BY-NC 4.0"


def _processed(name: str, rows: int, licence: str, stem: str | None = None, **known: Any) -> PublishedSet:
    """Return a set as the paper's authors processed it; `known`: fields of its file."""
    stem = stem or name
    return PublishedSet(
        name,
        files=(RawFile(f"{AUTHORS}{stem}.jsonl", f"{stem}.jsonl", **known),),
        rows=rows,
        licence=licence,
        source="https://github.com/ZhengxiangShi/InstructionModelling",
        folder="",
    )


def _alpagasus(name: str, folder: str, converted: str, **known: Any) -> PublishedSet:
    """Return one of AlpaGasus' selections with the rows and licence of its set as the authors processed it;
    `known`: fields of its file."""
    processed = next(entry for entry in _PROCESSED if entry.name == converted)
    return replace(
        processed,
        name=name,
        files=(RawFile(f"{ALPAGASUS}{name}.json", f"{name}.json", **known),),
        source="https://github.com/gpt4life/alpagasus",
        folder=f"alpagasus/{folder}",
        formats=(converted,),
    )


def _raw(name: str, *files: RawFile, **fields: Any) -> PublishedSet:
    """Return a set that is converted by the format of its name, from a folder of its name, unless `fields`
    say otherwise."""
    usual = {"folder": f"raw_train/{name}", "formats": (name,), "files": files}
    return PublishedSet(name=name, **{**usual, **fields})


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

_PROCESSED = (
    _processed(
        "lima_data",
        1030,
        "CC BY-NC-SA (stricter where a source is)",
        sha256="c15ce7cacc2696192727351f4392dc059608dc5a96d69bb69f8ca461725c15b1",
        size=3_048_271,
    ),
    _processed(
        "alpagasus_3k_dolly",
        2996,
        "CC BY-SA 3.0 (Dolly)",
        sha256="28b89ba107e6776179515990d12a231b1a209ee360e21f365341033d8fad9f23",
        size=2_478_365,
    ),
    # From Alpaca, not Dolly, whatever its name in the paper: AlpaGasus' README and its rows' shape say so.
    _processed("alpagasus_9k_dolly", 9229, f"{_BY_NC} (Stanford Alpaca)"),
    _processed("alpagasus_claude_t45_alpaca", 5305, f"{_BY_NC} (Stanford Alpaca)"),
    _processed("tydiqa", 13_533, "of Flan v2, CoT, Dolly and OASST1", stem=f"tydiqa_{_LESS}"),
    _processed("mmlu_chat", 13_533, "of Flan v2, CoT, Dolly and OASST1", stem=f"mmlu-chat_{_LESS}"),
    _processed("bbh_icl", 13_533, "of Flan v2, CoT, Dolly and OASST1", stem=f"bbh-icl_{_LESS}"),
)
_RAW = (
    _alpagasus(
        "dolly_3k",
        "dolly",
        "alpagasus_3k_dolly",
        sha256="cb8d16e85ec217a53587c96596a1e8971b8d72a2fd9d5bc23a2dd3d57b59eeea",
        size=2_315_006,
    ),
    _alpagasus("chatgpt_9k", "dolly", "alpagasus_9k_dolly"),
    _alpagasus("claude_t45", "alpaca", "alpagasus_claude_t45_alpaca"),
    _raw(
        "less",
        RawFile(
            HUB + "princeton-nlp/less_data/resolve/main/less-data.zip",
            "less-data.zip",
            members=("*train/processed/*_data.jsonl",),
            flat=True,
        ),
        rows=270_679,
        licence="of Flan v2, CoT, Dolly and OASST1",
        source=HUB + "princeton-nlp/less_data",
    ),
    _raw(
        "super_ni",
        RawFile(
            "https://github.com/allenai/natural-instructions/archive/refs/heads/master.zip",
            "master.zip",
            members=("*/tasks/*.json", "*/splits/xlingual/train_tasks.txt"),
        ),
        rows=96_913,
        licence="Apache-2.0",
        source="https://github.com/allenai/natural-instructions",
    ),
    _raw(
        "cot",
        RawFile(BEAKER + "01GXZ52K2Q932H6KZY499A7FE8/files/cot_zsopt.jsonl", "cot_zsopt.jsonl"),
        RawFile(BEAKER + "01GXZ51ZV283RAZW7J3ECM4S58/files/cot_fsopt.jsonl", "cot_fsopt.jsonl"),
        rows=100_000,
        licence="Apache-2.0",
        source="https://github.com/google-research/FLAN",
    ),
    _raw(
        "flan_v2",
        RawFile(
            BEAKER + "01GZTTS2EJFPA83PXS4FQCS1SA/files/flan_v2_resampled_100k.jsonl",
            "tulu_v1_resampled_flan_100k.jsonl",
        ),
        RawFile(
            BEAKER + "01HBS0N5ZSDF5AECA9VMB1RKXQ/files/flan_v2_resampled_50k.jsonl",
            "tulu_v2_resampled_flan_50k.jsonl",
        ),
        rows=100_000,
        licence="Apache-2.0",
        source="https://github.com/google-research/FLAN",
    ),
    _raw(
        "dolly",
        RawFile(
            HUB + "databricks/databricks-dolly-15k/resolve/main/databricks-dolly-15k.jsonl",
            "databricks-dolly-15k.jsonl",
            listed=13_100_000,
            published="2df9083338b4abd6bceb5635764dab5d833b393b55759dffb0959b6fcbf794ec",
        ),
        rows=15_011,
        licence="CC BY-SA 3.0",
        source=HUB + "databricks/databricks-dolly-15k",
    ),
    _raw(
        "self_instruct",
        _github(
            "yizhongw/self-instruct", "main", "data/gpt3_generations/batch_221203/all_instances_82K.jsonl"
        ),
        rows=82_439,
        licence="Apache-2.0",
        source="https://github.com/yizhongw/self-instruct",
    ),
    _raw(
        "unnatural_instructions",
        RawFile(
            "https://raw.githubusercontent.com/orhonovich/unnatural-instructions/main/data/core_data.zip",
            "core_data.zip",
            members=("core_data.jsonl", "*/core_data.jsonl"),
            flat=True,
        ),
        rows=68_478,
        licence="MIT",
        source="https://github.com/orhonovich/unnatural-instructions",
    ),
    _raw(
        "stanford_alpaca",
        _github("tatsu-lab/stanford_alpaca", "main", "alpaca_data.json"),
        rows=52_002,
        licence=_BY_NC,
        source="https://github.com/tatsu-lab/stanford_alpaca",
    ),
    _raw(
        "code_alpaca",
        _github("sahil280114/codealpaca", "master", "data/code_alpaca_20k.json"),
        rows=20_022,
        licence=_BY_NC,
        source="https://github.com/sahil280114/codealpaca",
    ),
    _raw(
        "gpt4_alpaca",
        _github("Instruction-Tuning-with-GPT-4/GPT-4-LLM", "main", "data/alpaca_gpt4_data.json"),
        rows=52_002,
        licence=_BY_NC,
        source="https://github.com/Instruction-Tuning-with-GPT-4/GPT-4-LLM",
    ),
    _raw(
        "baize",
        *(
            _github("project-baize/baize-chatbot", "main", f"data/{part}_chat_data.json")
            for part in ("alpaca", "medical", "quora", "stackoverflow")
        ),
        rows=210_311,
        licence="GPL-3.0",
        source="https://github.com/project-baize/baize-chatbot",
    ),
    _raw(
        "oasst1",
        RawFile(
            HUB + "OpenAssistant/oasst1/resolve/main/2023-04-12_oasst_ready.trees.jsonl.gz",
            "2023-04-12_oasst_ready.trees.jsonl.gz",
            listed=34_100_000,
            published="2a9a8fd343e9b28e04a895a669d3253f82d93e9c174d440199ae19d5fafbdff7",
        ),
        rows=34_795,
        licence="Apache-2.0",
        source=HUB + "OpenAssistant/oasst1",
    ),
    _raw(
        "sharegpt",
        *_SHAREGPT,
        rows=168_864,
        licence="unclear; its page says Apache-2.0",
        source=_SHAREGPT_PAGE,
    ),
    _raw(
        "sharegpt_4096",
        *_SHAREGPT,
        rows=None,
        licence="unclear; its page says Apache-2.0",
        source=_SHAREGPT_PAGE,
        folder="raw_train/sharegpt",
    ),
    _raw(
        "lima",
        RawFile(HUB + "GAIR/lima/resolve/main/train.jsonl", "train.jsonl"),
        rows=1030,
        licence="CC BY-NC-SA (stricter where a source is)",
        source=HUB + "GAIR/lima",
        access=HUB + "GAIR/lima",
        instead="lima_data",
    ),
    _raw(
        "wizardlm",
        RawFile(
            HUB + "WizardLM/WizardLM_evol_instruct_V2_196k/resolve/main/WizardLM_evol_instruct_V2_143k.json",
            "WizardLM_evol_instruct_V2_143k.json",
            listed=375_000_000,
        ),
        rows=30_000,
        licence="MIT, as its page says",
        source=HUB + "WizardLM/WizardLM_evol_instruct_V2_196k",
    ),
    _raw(
        "open_orca",
        RawFile(
            HUB + "Open-Orca/OpenOrca/resolve/main/1M-GPT4-Augmented.parquet",
            "1M-GPT4-Augmented.parquet",
            listed=1_010_000_000,
            published="8d3f4a6e5980a5f163ca22be60336f8b47796d43836d984569f857ec56aadfd8",
        ),
        rows=30_000,
        licence="MIT",
        source=HUB + "Open-Orca/OpenOrca",
    ),
    _raw(
        "science",
        RawFile(BEAKER + "01HBS3G7TA8AT15C7RWTJAN66X/files/science_train.jsonl", "science_train.jsonl"),
        rows=7544,
        licence="see the source",
        source="https://github.com/allenai/open-instruct",
    ),
    _raw(
        "hard_coded",
        RawFile(
            BEAKER + "01HBS14BBV16K45MMFSYJR86CA/files/hard_coded_examples.xlsx", "hard_coded_examples.xlsx"
        ),
        rows=None,
        licence="see the source",
        source="https://github.com/allenai/open-instruct",
    ),
    PublishedSet(
        name="tulu_v2",
        files=(),
        rows=326_181,
        licence="ODC-BY, and each part's own",
        source="https://github.com/allenai/open-instruct",
        folder="raw_train",
        formats=("tulu_v2",),
        parts=(
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
    PublishedSet(
        name="tulu_v1",
        files=(),
        rows=None,
        licence="ODC-BY, and each part's own",
        source="https://github.com/allenai/open-instruct",
        folder="raw_train",
        formats=("tulu_v1",),
        parts=("flan_v2", "cot", "oasst1", "dolly", "gpt4_alpaca", "code_alpaca", "sharegpt"),
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

CATALOGUE = {entry.name: replace(entry, words=_WORDS.get(entry.name)) for entry in (*_PROCESSED, *_RAW)}
