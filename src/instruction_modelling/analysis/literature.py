"""What has been published about instruction modelling, as numbers: each with its source, so that it can be
checked.

IT: loss on the responses alone. IM: loss on the instructions too. "The paper" is Shi et al., *Instruction
Tuning With Loss Over Instructions*, NeurIPS 2024 (arXiv 2405.14394). AE1, AE2: AlpacaEval 1.0 and 2.0 win
rates (%); MT: MT-Bench (1 to 10);
mean: the mean over its six categories of NLP tasks (%).
"""

from dataclasses import dataclass

PAPER = "Shi et al. 2024, arXiv 2405.14394"


@dataclass(frozen=True)
class Scores:
    """One row of the paper's Table 1 (LLaMA-2-7B)."""

    mean: float
    mt: float
    ae1: float
    ae2: float


@dataclass(frozen=True)
class PaperSet:
    """A data set of the paper: Table 5's words a row (`instruction_modelling.analysis.words` counts them),
    and Table 1's and Table 4's scores where it was tuned on."""

    name: str
    rows: int
    total: float
    output: float
    output_sd: float
    instruction: float
    instruction_sd: float
    it: Scores | None = None
    neftune: Scores | None = None
    im: Scores | None = None
    im_neftune_ae1: float | None = None

    @property
    def ratio(self) -> float:
        """Mean instruction over mean output length."""
        return self.instruction / self.output


PAPER_SETS = (
    PaperSet(
        "LIMA",
        1030,
        484.47,
        442.75,
        491.34,
        41.72,
        79.28,
        Scores(48.79, 4.77, 33.06, 2.58),
        Scores(48.70, 4.79, 30.51, 2.43),
        Scores(49.60, 4.83, 32.94, 2.47),
        30.77,
    ),
    PaperSet(
        "Less MMLU Chat",
        13533,
        225.19,
        8.24,
        16.42,
        216.95,
        301.64,
        Scores(47.18, 3.86, 4.42, 1.20),
        Scores(47.74, 4.06, 6.22, 1.06),
        Scores(47.84, 4.54, 9.78, 1.93),
        12.45,
    ),
    PaperSet(
        "Less Tydiqa",
        13533,
        172.44,
        25.13,
        42.62,
        147.31,
        235.37,
        Scores(48.21, 4.08, 5.12, 1.88),
        Scores(47.47, 4.19, 8.35, 2.58),
        Scores(48.70, 4.36, 10.10, 2.88),
        23.41,
    ),
    PaperSet(
        "Less BBH ICL",
        13533,
        262.03,
        61.44,
        92.55,
        200.60,
        196.79,
        Scores(48.28, 4.78, 36.20, 2.36),
        Scores(49.03, 5.05, 39.81, 2.87),
        Scores(49.15, 5.03, 44.15, 3.56),
        48.25,
    ),
    PaperSet(
        "Alpagasus Dolly 3k",
        2996,
        111.91,
        68.08,
        106.38,
        43.83,
        107.53,
        Scores(46.58, 4.23, 13.42, 2.00),
        Scores(47.07, 4.42, 14.04, 2.03),
        Scores(48.95, 4.06, 15.11, 2.44),
        23.35,
    ),
    PaperSet(
        "Alpagasus Dolly 9k",
        9229,
        73.40,
        56.62,
        48.91,
        16.79,
        11.33,
        Scores(45.54, 4.33, 21.54, 2.28),
        Scores(45.99, 4.21, 31.61, 2.84),
        Scores(48.00, 4.55, 30.77, 2.67),
        38.28,
    ),
    PaperSet(
        "Alpagasus Alpaca 5k",
        5305,
        48.29,
        30.81,
        34.44,
        17.48,
        12.45,
        Scores(45.29, 3.62, 16.29, 2.46),
        Scores(45.62, 3.50, 21.37, 2.37),
        Scores(47.47, 3.48, 19.52, 3.29),
        32.07,
    ),
    PaperSet("Tulu V2", 326181, 541.16, 343.56, 575.32, 197.60, 345.99),
    PaperSet("Tulu V2 10 %", 32618, 517.45, 338.96, 562.74, 178.49, 345.72),
    PaperSet("Tulu V2 50 %", 163090, 515.63, 340.67, 571.06, 174.97, 343.45),
    PaperSet("Tulu V2 20 %", 65236, 504.56, 336.89, 562.46, 167.68, 331.24),
    PaperSet("WizardLM", 30000, 350.05, 258.35, 182.98, 91.71, 86.09),
    PaperSet("ShareGPT", 50000, 1035.39, 831.15, 757.10, 204.24, 344.51),
    PaperSet("Science Literature", 7544, 1196.08, 46.46, 57.34, 1149.62, 905.99),
    PaperSet("Stanford Alpaca", 52002, 63.77, 45.18, 44.97, 18.59, 12.42),
    PaperSet("Code Alpaca", 20022, 49.74, 27.40, 27.35, 22.34, 10.67),
)
TABLES = f"{PAPER}, Tables 1, 4 and 5"

# Figure 2, left: (set, instruction / output, AE1 gain of IM over IT in %), read off the published figure,
# within 1 %.
FIGURE_2_RATIO = (
    ("LIMA", 0.0942, -0.4),
    ("ShareGPT", 0.2457, 8.3),
    ("Alpagasus Dolly 9k", 0.2965, 12.0),
    ("Stanford Alpaca", 0.4115, 27.4),
    ("Tulu V2 20 %", 0.498, 7.5),
    ("Tulu V2 50 %", 0.514, 0.9),
    ("Tulu V2 10 %", 0.527, 8.1),
    ("Alpagasus Alpaca 5k", 0.567, 19.9),
    ("Tulu V2", 0.575, 1.7),
    ("Alpagasus Dolly 3k", 0.644, 12.6),
    ("Code Alpaca", 0.816, 34.4),
    ("WizardLM", 2.82, 3.4),
    ("Less BBH ICL", 3.265, 22.0),
    ("Tulu V2, ratio 5", 5.5, 16.7),
    ("Less Tydiqa", 5.86, 63.2),
    ("Tulu V2, ratio 10", 9.8, 107.0),
    ("Tulu V2, ratio 15", 17.5, 96.0),
    ("Science Literature", 24.7, 73.2),
    ("Less MMLU Chat", 26.3, 121.5),
)
# Where the figure disagrees with the paper's own tables: WizardLM stands at output / instruction; the gains
# of two sets are not those of Table 1 (Less Tydiqa's is NEFTune's). {set: (ratio by Table 5, gain by Table
# 1)}; None: as drawn.
FIGURE_2_CORRECTED: dict[str, tuple[float | None, float | None]] = {
    "WizardLM": (0.355, None),
    "Alpagasus Dolly 9k": (None, 42.9),
    "Less Tydiqa": (None, 97.3),
}
# Figure 2, right: (rows, AE1 gain of IM over IT in %) of subsets of Tulu V2 with an instruction / output
# ratio near 10.
FIGURE_2_SIZE = (
    (1000, 149.6),
    (2000, 151.2),
    (3000, 107.1),
    (4000, 131.9),
    (5000, 71.1),
    (7500, 136.2),
    (10000, 39.3),
    (12500, 39.7),
    (15000, 19.6),
    (17500, 21.9),
    (20000, 67.3),
    (22500, 37.5),
    (25000, 43.6),
    (27500, 26.2),
    (35000, 41.1),
)
# The lines that the paper prints in Figure 2: gain = slope x ln(ratio or rows) + intercept.
PAPER_RATIO_LINE = (18.85, 25.83)
PAPER_SIZE_LINE = (-39.37, 431.74)
FIGURE_2 = f"{PAPER}, Figure 2"


@dataclass(frozen=True)
class Study:
    """What one source found: `stance` is for IM, against it, mixed, or a caution about using it or reading
    results."""

    key: str
    stance: str
    text: str
    source: str


STUDIES = {
    study.key: study
    for study in (
        Study(
            "long instructions",
            "for",
            "Sets with long instructions and short outputs gained most: AE1 4.42 to 9.78 (+121 %) on Less "
            "MMLU Chat, 5.12 to "
            "10.10 (+97 %) on Less Tydiqa, 36.20 to 44.15 (+22 %) on Less BBH ICL; over all seven sets IM "
            "raised the mean of the "
            "NLP tasks by 0.49 to 2.46 points.",
            f"{PAPER}, Table 1",
        ),
        Study(
            "long outputs",
            "against",
            "On the paper's set with the longest outputs, LIMA, AE1 did not rise (33.06 to 32.94); the NLP "
            "mean went from 48.79 to "
            "49.60.",
            f"{PAPER}, Table 1",
        ),
        Study(
            "middle ratios",
            "mixed",
            "Between, AE1 rose by 13 % (Alpagasus Dolly 3k), 20 % (Alpagasus Alpaca 5k) and 43 % (Dolly 9k), "
            "while MT-Bench fell "
            "on two of the three (4.23 to 4.06, 3.62 to 3.48, 4.33 to 4.55).",
            f"{PAPER}, Table 1",
        ),
        Study(
            "few rows",
            "for",
            "Of subsets with a ratio near 10, those of 1,000 to 4,000 rows gained 107 to 151 % in AE1, those "
            "of 10,000 and more "
            "still 20 to 67 %.",
            f"{FIGURE_2}, right; one run each, and larger subsets hold looser ratios",
        ),
        Study(
            "overfitting",
            "for",
            "IM models fit their training outputs less and unseen ones better: loss on outputs, IT against "
            "IM, train 1.37 / 1.45 "
            "and test 1.32 / 1.17 (LIMA), 0.58 / 0.61 and 1.26 / 1.19 (Dolly 3k), 0.07 / 0.16 and 1.12 / "
            "0.98 (Less MMLU Chat); "
            "their outputs repeat the training set less (BLEU lower on all seven sets, as 60.96 to 53.94 on "
            "Less BBH ICL).",
            f"{PAPER}, Figures 3, 8 and 9, Table 2; Tulu V2, the test set, holds LIMA itself",
        ),
        Study(
            "neftune",
            "mixed",
            "NEFTune alone had a higher AE1 than IM on two sets of seven (Dolly 9k 31.61 against 30.77, "
            "Alpaca 5k 21.37 against "
            "19.52); with IM it added up to 13.3 points (Less Tydiqa 10.10 to 23.41) and took 2.2 on LIMA "
            "(32.94 to 30.77).",
            f"{PAPER}, Tables 1 and 4",
        ),
        Study(
            "fractional prompts",
            "mixed",
            "Short-completion data: small prompt loss weights (0.01 to 0.5; regression optimum about 0.24) "
            "were best on multiple "
            "choice and short answers, and about 1 on long generation; with long completions the weight made "
            "no difference.",
            "Huerta-Enochian & Ko 2024, arXiv 2401.13586",
        ),
        Study(
            "weighted tuning",
            "mixed",
            "In 75 settings (5 models, 3 sets, 525 runs) a prompt weight of 0 to 0.5 with a response weight "
            "of 0.5 to 1 was best "
            "(+6.55 % on average over IT); a prompt weight other than 0 was best in 56 % of them, and a "
            "response weight of 1 in "
            "only 24 %: part of the gain may come from weighing the response less.",
            "Chatterjee et al. 2025, arXiv 2507.07817 (WIT)",
        ),
        Study(
            "learning from use",
            "against",
            "On Alpagasus Dolly 3k (math / knowledge / reasoning / helpfulness) IM against IT: Llama-2-7B "
            "24.0 / 66.9 / 57.3 / "
            "46.1 to 18.5 / 66.4 / 62.0 / 41.2, Mistral-7B 28.9 / 72.9 / 65.5 / 45.4 to 23.4 / 73.1 / 67.1 / "
            "44.6, Llama-3.1-8B "
            "37.0 / 72.8 / 64.8 / 50.6 to 38.4 / 73.3 / 66.9 / 48.6, its Instruct 56.6 / 72.9 / 81.8 / 69.3 "
            "to 59.6 / 73.6 / 81.9 / "
            "68.8. Tuned on GSM8K, math fell on the first two (35.9 to 32.2, 48.2 to 43.0) and not on the "
            "third (51.5 to 51.8).",
            "arXiv 2511.13052 (LfU), IM as a baseline",
        ),
        Study(
            "kl",
            "mixed",
            "The paper finds a KL penalty no substitute (LIMA, weight 1: NLP mean 48.79 to 49.26, AE2 2.58 "
            "to 0.06), but in its code "
            "that penalty cancels the loss exactly at weight 1, so the run is the untuned model: a true KL "
            "has not been tried there.",
            f"{PAPER}, Tables 3 and 7, and its released code",
        ),
        Study(
            "responses alone",
            "mixed",
            "Training on responses without any instruction already yields models that follow instructions: "
            "the loss on instructions "
            "can matter only so much.",
            "Response Tuning, arXiv 2410.02465; arXiv 2409.14254",
        ),
        Study(
            "smollm3",
            "against",
            "At large scale, masking the user's turns gave a few points, most on IFEval.",
            "SmolLM3, Smol Training Playbook",
        ),
        Study(
            "long user turns",
            "against",
            "With user turns much longer than the answers (Gemma-2B, Universal-NER) masking them was "
            "crucial: the opposite of the "
            "paper's claim for this regime.",
            "Gottesman, “Mask your user tokens”",
        ),
        Study(
            "small exercise",
            "mixed",
            "In a small exercise the masked variant was about 4 points worse; researchers are said to be "
            "split.",
            "Raschka, Build a Large Language Model (From Scratch)",
        ),
        Study(
            "winogrande",
            "against",
            "P-tuning a 1.3B model on Winogrande: 0.528 with the loss on answers alone, 0.487 on the full "
            "text (untuned 0.489).",
            "NVIDIA NeMo, pull request 3438",
        ),
        Study(
            "safety",
            "caution",
            "Five steps of adversarial fine-tuning broke models tuned with IM far more often: attack success "
            "60.9 / 80.0 / 81.9 % "
            "against 34.8 / 55.0 / 7.3 % for IT (HEx-PHI / PureBad / AdvBench). Test safety before you "
            "release such a model.",
            "arXiv 2511.13052 (LfU)",
        ),
        Study(
            "seed noise",
            "caution",
            "The paper's runs are one each, unseeded, without error bars, and seeds alone move an average by "
            "0.3 points (8B) to "
            "2.6 (70B): differences of half a point say nothing. Run three seeds or more.",
            "Tülu 3 report, as summarised in notes on it; Table 1 of arXiv 2405.14394",
        ),
        Study(
            "response weight",
            "caution",
            "Averaged within each row, IM leaves the response only its share of the tokens: part of what IM "
            "does is to weigh the "
            "response less. A fractional weight, or --loss_denominator response, tells the two apart.",
            "algebra of the loss; WIT (arXiv 2507.07817) finds a response weight below 1 best in most "
            "settings",
        ),
        Study(
            "nlp mean",
            "caution",
            "The paper's NLP mean averages six categories, one of which counts a translation error rate "
            "(lower is better) as if higher "
            "were better. Without that category IM is still ahead of IT on all seven sets, by 0.73 to 3.22 "
            "points.",
            f"recomputed from {PAPER}, Table 1",
        ),
        Study(
            "moved less",
            "caution",
            "A lower loss on unseen outputs may mean only that the model moved less from where it began: "
            "hold both against the untuned "
            "model, which src/compare.py measures too.",
            f"{PAPER}, Figures 3, 8 and 9",
        ),
        Study(
            "contamination",
            "caution",
            "Check that test rows are not in the training file: the paper's test set, Tulu V2, holds LIMA, "
            "and LESS sets were "
            "selected by the likeness to the benchmarks' own validation rows.",
            f"{PAPER}; LESS, arXiv 2402.04333",
        ),
        Study(
            "template wrappers",
            "caution",
            "Where every instruction is wrapped in one of a few prompt templates (as the Alpagasus sets "
            "are), IM trains on the "
            "wrapper's words over and over, and IT does not.",
            f"the data released with {PAPER}",
        ),
    )
}

# Where the instructions are long, where neither is much longer, where the outputs are long.
LONG_INSTRUCTIONS, MIDDLE, LONG_OUTPUTS = (
    "long instructions, short outputs",
    "neither much longer than the other",
    "short instructions, long outputs",
)
# What Table 1 and later work say of each, in a sentence or two.
IN_BRIEF = {
    LONG_INSTRUCTIONS: "The paper speaks for IM here: on its three sets like this AlpacaEval 1.0 rose by 22, "
    "97 and 121 %, the NLP "
    "mean by 0.5 to 0.9 points. Later reports are divided; one, on user turns much longer than the answers, "
    "found masking them crucial.",
    MIDDLE: "The paper speaks for IM here, less loudly: on its three sets like this AlpacaEval 1.0 rose by "
    "13, 20 and 43 %, the NLP "
    "mean by 2.2 to 2.5 points, but MT-Bench fell on two. A later study of one of them has IM behind IT in "
    "helpfulness on "
    "all four models.",
    LONG_OUTPUTS: "Little is to be expected of IM here: on LIMA, the paper's set like this, AlpacaEval 1.0 "
    "did not rise and the NLP "
    "mean rose by 0.8 points (one run each); a later study finds that the prompt's weight makes no "
    "difference where "
    "completions are long.",
}
