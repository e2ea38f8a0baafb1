"""Everything that the benchmarks need: where its files are, on which terms.

`nlp` are the data sets of lm-eval's tasks, which it fetches itself. The others are files at their original
addresses: of the judged benchmarks, and of those of lm-eval's tasks that can also be read from this machine's
files (eval/local_tasks.py)."""

from eval.table.suite import BENCHMARKS
from instruction_modelling.sources.downloads.published import HUB, PublishedSet, RawFile

RAW = "https://raw.githubusercontent.com/"
FASTCHAT = RAW + "lm-sys/FastChat/main/fastchat/llm_judge/data/"
ALPACA_EVAL = RAW + "tatsu-lab/alpaca_eval/main/results/"
BBH = RAW + "suzgunmirac/BIG-Bench-Hard/9ee07bd481feebf959a6b59d61ea57bdcf30964d/bbh/"
GSM8K = RAW + "openai/grade-school-math/3101c7d5072418e28b9008a6636bde82a006892c/grade_school_math/data/"
BBH_TASKS = (
    "boolean_expressions",
    "causal_judgement",
    "date_understanding",
    "disambiguation_qa",
    "dyck_languages",
    "formal_fallacies",
    "geometric_shapes",
    "hyperbaton",
    "logical_deduction_five_objects",
    "logical_deduction_seven_objects",
    "logical_deduction_three_objects",
    "movie_recommendation",
    "multistep_arithmetic_two",
    "navigate",
    "object_counting",
    "penguins_in_a_table",
    "reasoning_about_colored_objects",
    "ruin_names",
    "salient_translation_error_detection",
    "snarks",
    "sports_understanding",
    "temporal_sequences",
    "tracking_shuffled_objects_five_objects",
    "tracking_shuffled_objects_seven_objects",
    "tracking_shuffled_objects_three_objects",
    "web_of_lies",
    "word_sorting",
)
NLP = "nlp"
JUDGED_SETS = ("mt_bench", "alpaca_eval")


def _set(  # noqa: PLR0913 (the columns of a catalogue)
    name: str,
    rows: int | None,
    licence: str,
    source: str,
    *files: RawFile,
    folder: str | None = None,
    parts: tuple[str, ...] = (),
) -> PublishedSet:
    return PublishedSet(name, files, rows, licence, source, f"eval/{folder or name}", parts=parts)


_SETS = (
    _set(
        "mt_bench",
        80,
        "Apache-2.0",
        "https://github.com/lm-sys/FastChat",
        RawFile(
            FASTCHAT + "mt_bench/question.jsonl",
            "question.jsonl",
            published="119565adbab82227089cefdb44c8d7e2cf04dc0a0ec233634c82e7d4e2a944f7",
        ),
        RawFile(
            FASTCHAT + "judge_prompts.jsonl",
            "judge_prompts.jsonl",
            published="fd283293406d024f44c174b094ef48031d0687a4682fd3a56b29b138f80281b6",
        ),
        RawFile(
            FASTCHAT + "mt_bench/reference_answer/gpt-4.jsonl",
            "reference_answer/gpt-4.jsonl",
            published="f957a5bc977badb66885ec970e6cd08527845780313f0995764260e5777b9b3f",
        ),
    ),
    _set(
        "alpaca_eval",
        805,
        "Apache-2.0",
        "https://github.com/tatsu-lab/alpaca_eval",
        RawFile(
            ALPACA_EVAL + "text_davinci_003/model_outputs.json",
            "text_davinci_003.json",
            published="af0bc112f08c88bf589bbfe6fc1036806d0a0f6fec9c4d5a4db860f5afe73b4b",
        ),
        RawFile(
            ALPACA_EVAL + "gpt4_1106_preview/model_outputs.json",
            "gpt4_1106_preview.json",
            published="83db546b872ddebee8965fd05fa48461ee3c32bc695c62fb57f2d214ff741ec4",
        ),
    ),
    _set(
        "alpaca_eval_length",
        None,
        "see the source",
        HUB + "tatsu-lab/alpaca_eval",
        RawFile(HUB + "tatsu-lab/alpaca_eval/resolve/main/df_gamed.csv", "df_gamed.csv"),
        folder="alpaca_eval",
    ),
    _set(
        NLP,
        None,
        "each data set's own",
        "https://github.com/EleutherAI/lm-evaluation-harness",
        parts=tuple(benchmark.key for benchmark in BENCHMARKS),
    ),
    _set(
        "mmlu",
        14_042,
        "MIT",
        "https://github.com/hendrycks/test",
        RawFile(
            "https://people.eecs.berkeley.edu/~hendrycks/data.tar",
            "data.tar",
            members=("*/dev/*_dev.csv", "*/test/*_test.csv"),
        ),
    ),
    _set(
        "piqa",
        1838,
        "AFL-3.0",
        "https://yonatanbisk.com/piqa",
        RawFile(
            "https://yonatanbisk.com/piqa/data/valid.jsonl",
            "valid.jsonl",
            published="93503cc97c679e459b065c3d13e848282e44b2a25213985bed3e5d458abef72d",
        ),
        RawFile(
            "https://yonatanbisk.com/piqa/data/valid-labels.lst",
            "valid-labels.lst",
            published="b4192dc3a2a0363d9d60ccf79800cbbe2f32ebb17726efdde6970e0b8131bceb",
        ),
        RawFile("https://yonatanbisk.com/piqa/data/train.jsonl", "train.jsonl"),
        RawFile("https://yonatanbisk.com/piqa/data/train-labels.lst", "train-labels.lst"),
    ),
    _set(
        "hellaswag",
        10_042,
        "MIT",
        "https://github.com/rowanz/hellaswag",
        RawFile(RAW + "rowanz/hellaswag/master/data/hellaswag_val.jsonl", "hellaswag_val.jsonl"),
        RawFile(RAW + "rowanz/hellaswag/master/data/hellaswag_train.jsonl", "hellaswag_train.jsonl"),
    ),
    _set(
        "lambada",
        5153,
        "see the source",
        "https://github.com/openai/gpt-2",
        RawFile(
            "https://openaipublic.blob.core.windows.net/gpt-2/data/lambada_test.jsonl",
            "lambada_test.jsonl",
            published="4aa8d02cd17c719165fc8a7887fddd641f43fcafa4b1c806ca8abc31fabdb226",
        ),
    ),
    _set(
        "winogrande",
        1267,
        "CC BY 2.0",
        "https://github.com/allenai/winogrande",
        RawFile(
            "https://storage.googleapis.com/ai2-mosaic/public/winogrande/winogrande_1.1.zip",
            "winogrande_1.1.zip",
            members=("*/train_xl.jsonl", "*/dev.jsonl"),
            flat=True,
        ),
    ),
    _set(
        "arc",
        2376 + 1172,
        "CC BY-SA 4.0",
        "https://allenai.org/data/arc",
        RawFile(
            "https://ai2-public-datasets.s3.amazonaws.com/arc/ARC-V1-Feb2018.zip",
            "ARC-V1-Feb2018.zip",
            members=("*/ARC-Easy-*.jsonl", "*/ARC-Challenge-*.jsonl"),
            flat=True,
        ),
    ),
    _set(
        "gsm8k",
        1319,
        "MIT",
        "https://github.com/openai/grade-school-math",
        RawFile(
            GSM8K + "test.jsonl",
            "test.jsonl",
            "3730d312f6e3440559ace48831e51066acaca737f6eabec99bccb9e4b3c39d14",
        ),
    ),
    _set(
        "bbh",
        6511,
        "MIT",
        "https://github.com/suzgunmirac/BIG-Bench-Hard",
        *(RawFile(f"{BBH}{task}.json", f"{task}.json") for task in BBH_TASKS),
    ),
    _set(
        "truthfulqa",
        817,
        "Apache-2.0",
        "https://github.com/sylinrl/TruthfulQA",
        RawFile(
            RAW + "sylinrl/TruthfulQA/main/data/mc_task.json",
            "mc_task.json",
            published="6eb4125d25750c0145c4be2dce00440736684ab6f74ce6bff2139571cc758954",
        ),
    ),
)
CATALOGUE: dict[str, PublishedSet] = {published.name: published for published in _SETS}
# What is read from files by the group sft_eval_local.
LOCAL_SETS = ("mmlu", "piqa", "hellaswag", "lambada", "winogrande", "arc", "gsm8k", "bbh", "truthfulqa")
DEFAULT = (*JUDGED_SETS, NLP)
