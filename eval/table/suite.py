"""The paper's benchmarks: which task and metric each is, in which category, with how many examples; and its
Table 1.

A benchmark's score is the mean over its tasks weighted by their items, as lm-eval's groups were in the
paper's days; a category's is the mean of its benchmarks, and the mean that of the six categories (section 4.1
and Table 1)."""

import re
from dataclasses import dataclass
from typing import Any

from instruction_modelling.analysis.literature import paper_tables, paper_values

CATEGORIES = {
    "understanding": "Understanding & Knowledge",
    "multilinguality": "Multilinguality",
    "commonsense": "Commonsense",
    "math": "Math & Code",
    "bbh": "BBH",
    "safety": "Safety & Helpfulness",
}
JUDGED = {"mt_bench": "MT-Bench", "alpaca_eval_1": "AlpacaEval 1", "alpaca_eval_2": "AlpacaEval 2"}


@dataclass(frozen=True)
class Benchmark:
    """A benchmark of lm-eval: `tasks` is a pattern of its tasks' names, `metric` lm-eval's key of the
    score."""

    key: str
    category: str
    tasks: str
    metric: str
    shots: int | None
    """Few-shot examples as the paper gives them; None where it gives none."""
    count: int
    """Tasks that make it whole."""
    corrected_metric: str | None = None
    """Taken instead where higher is to be better."""

    def has(self, task: str) -> bool:
        """Return whether a task is one of its tasks."""
        return re.fullmatch(self.tasks, task) is not None

    def metric_of(self, corrected: bool) -> str:
        """Return lm-eval's key of the score under an aggregation."""
        return self.corrected_metric if corrected and self.corrected_metric else self.metric


# lm-eval has other tasks beside these, such as mmlu_anatomy_continuation, which ask otherwise.
MMLU_SUBJECTS = (
    "abstract_algebra|anatomy|astronomy|business_ethics|clinical_knowledge|college_biology|"
    "college_chemistry|college_computer_science|college_mathematics|college_medicine|college_physics|"
    "computer_security|conceptual_physics|econometrics|electrical_engineering|elementary_mathematics|"
    "formal_logic|global_facts|high_school_biology|high_school_chemistry|high_school_computer_science|"
    "high_school_european_history|high_school_geography|high_school_government_and_politics|"
    "high_school_macroeconomics|high_school_mathematics|high_school_microeconomics|high_school_physics|"
    "high_school_psychology|high_school_statistics|high_school_us_history|high_school_world_history|"
    "human_aging|human_sexuality|international_law|jurisprudence|logical_fallacies|machine_learning|"
    "management|marketing|medical_genetics|miscellaneous|moral_disputes|moral_scenarios|nutrition|"
    "philosophy|prehistory|professional_accounting|professional_law|professional_medicine|"
    "professional_psychology|public_relations|security_studies|sociology|us_foreign_policy|virology|"
    "world_religions"
)
BENCHMARKS = (
    Benchmark("mmlu", "understanding", f"mmlu_({MMLU_SUBJECTS})", "acc,none", 5, 57),
    Benchmark("piqa", "understanding", "piqa", "acc_norm,none", 10, 1),
    Benchmark("openbookqa", "understanding", "openbookqa", "acc_norm,none", None, 1),
    Benchmark("hellaswag", "understanding", "hellaswag", "acc_norm,none", 10, 1),
    Benchmark("lambada", "understanding", r"lambada_(openai|standard)", "acc,none", None, 2),
    Benchmark(
        "lambada_multilingual", "multilinguality", r"lambada_openai_mt_(de|en|es|fr|it)", "acc,none", None, 5
    ),
    Benchmark(
        "translation",
        "multilinguality",
        r"wmt(14-en-fr|14-fr-en|16-de-en|16-en-de|16-en-ro|16-ro-en)",
        "ter,none",
        None,
        6,
        corrected_metric="chrf,none",
    ),
    Benchmark("wsc273", "commonsense", "wsc273", "acc,none", None, 1),
    Benchmark("winogrande", "commonsense", "winogrande", "acc,none", 5, 1),
    Benchmark("ai2_arc", "commonsense", r"arc_(easy|challenge)", "acc_norm,none", 25, 2),
    Benchmark("coqa", "commonsense", "coqa", "f1,none", 0, 1),
    Benchmark("gsm8k_cot", "math", "gsm8k_cot", "exact_match,strict-match", 8, 1),
    Benchmark("bbh_cot_fewshot", "bbh", r"bbh_cot_fewshot_.*", "exact_match,get-answer", None, 27),
    Benchmark("truthfulqa_mc2", "safety", "truthfulqa_mc2", "acc,none", 0, 1),
    Benchmark("toxigen", "safety", "toxigen", "acc,none", None, 1),
    Benchmark(
        "hendrycks_ethics",
        "safety",
        r"ethics_(cm|deontology|justice|utilitarianism|virtue)",
        "acc,none",
        None,
        5,
    ),
)
HUMANEVAL = "humaneval"
# The benchmarks of each category; HumanEval is scored by this project.
OF_CATEGORY = {
    category: [benchmark.key for benchmark in BENCHMARKS if benchmark.category == category]
    + ([HUMANEVAL] if category == "math" else [])
    for category in CATEGORIES
}
# Metrics in hundredths; the others are in percent as they come.
IN_PERCENT = {"ter,none", "chrf,none", "bleu,none"}
# HumanEval's temperatures in the paper, and the one that `corrected` fixes.
TEMPERATURES = (0.1, 0.7)
FIXED_TEMPERATURE = 0.1
AGGREGATIONS = {"paper": "as the paper aggregates", "corrected": "with the paper's wrong turns mended"}
# What the paper's table does (Shi et al. 2024, Table 1, and its released script), and what `corrected` does
# instead.
WRONG_TURNS = (
    (
        "translation enters the mean as TER, an error rate, as if higher were better",
        "as chrF of the same translations, higher is better",
    ),
    (
        "HumanEval is the better of two temperatures, chosen on the test set",
        f"temperature {FIXED_TEMPERATURE}, fixed beforehand",
    ),
)
# The same under both aggregations.
REMARKS = (
    "the mean is that of six categories, so a benchmark in a small category weighs more than one in a large "
    "one",
    "a missing result is missing; the released script counts it as 0",
)


def paper_table() -> dict[str, Any]:
    """Return Table 1 of the paper: `source`, `columns`, and `rows` of data, method and values (percent;
    MT-Bench from 1 to 10)."""
    return paper_tables()["table_1"]


def paper_row(data: str, method: str) -> dict[str, float] | None:
    """Return a row of Table 1, None where it has no such row.

    Args:
        data: its data set's name here.
        method: base, chat, IT, NEFTune or IM.
    """
    return paper_values("table_1", data, method) or None


def category_mean(scores: dict[str, float]) -> float | None:
    """Return the mean of the six categories; None where one is missing."""
    return (
        sum(scores[name] for name in CATEGORIES) / len(CATEGORIES)
        if all(name in scores for name in CATEGORIES)
        else None
    )
