"""The paper's claims, computed anew from the numbers that its tables and figures print.

    python -m eval.paper.claims

prints a finding for each table and figure that has numbers; docs/claims.md has them beside the claims, and
what was tried of the others. A finding here says what the printed numbers say, and nothing of whether other
runs would give them: each is one run without a seed."""

import math
from collections.abc import Mapping

from scipy.stats import pearsonr

from instruction_modelling.analysis.literature import PAPER_SETS, paper_tables
from instruction_modelling.analysis.predictions import Line, fit_line, ratio_points, size_points

Values = Mapping[str, float]
# The six categories that the mean is of.
CATEGORIES = ("understanding", "multilinguality", "commonsense", "math", "bbh", "safety")


def rows_of(table: str) -> dict[str, dict[str, Values]]:
    """Return {data: {method: {column: value}}} of one of the paper's tables, in its order."""
    columns, rows = paper_tables()[table]["columns"], paper_tables()[table]["rows"]
    found: dict[str, dict[str, Values]] = {}
    for row in rows:
        found.setdefault(row["data"], {})[row.get("method", "")] = dict(
            zip(columns, row["values"], strict=True)
        )
    return found


def gains(table: str, column: str, arm: str = "IM", reference: str = "IT") -> dict[str, float]:
    """Return, for each data set that has both, the arm's value minus the reference's."""
    return {
        data: methods[arm][column] - methods[reference][column]
        for data, methods in rows_of(table).items()
        if arm in methods and reference in methods
    }


def _more(differences: Mapping[str, float]) -> str:
    return f"{sum(value > 0 for value in differences.values())} of {len(differences)}"


def _range(differences: Mapping[str, float]) -> str:
    return f"{min(differences.values()):+.2f} to {max(differences.values()):+.2f}"


def table_1() -> dict[str, str]:
    """Return the findings on Table 1, which Figure 1 draws."""
    table = rows_of("table_1")
    printed = [values for methods in table.values() for values in methods.values()]
    off = max(abs(sum(v[c] for c in CATEGORIES) / 6 - v["mean"]) for v in printed)
    others = [c for c in CATEGORIES if c != "multilinguality"]
    without = {
        data: sum(m["IM"][c] - m["IT"][c] for c in others) / 5 for data, m in table.items() if "IM" in m
    }
    mean, over_noise = gains("table_1", "mean"), gains("table_1", "mean", reference="NEFTune")
    first, relative = gains("table_1", "alpaca_eval_1"), relative_gains()
    first_noise = gains("table_1", "alpaca_eval_1", reference="NEFTune")
    second, bench = (gains("table_1", column) for column in ("alpaca_eval_2", "mt_bench"))
    by_category = "; ".join(f"{c} {_more(gains('table_1', c))}" for c in CATEGORIES)
    bbh, base = table["bbh_icl"]["IT"], table["none"]["base"]
    same = max(abs(bbh[c] - base[c]) for c in CATEGORIES if c != "math")
    return {
        "table 1, the mean": f"of its {len(printed)} rows, the mean of the six categories is the printed one "
        f"to {off:.3f}",
        "table 1, NLP tasks": f"IM's mean is above IT's on {_more(mean)} sets ({_range(mean)} points) and "
        f"above NEFTune's on {_more(over_noise)} ({_range(over_noise)}); by category IM is above IT: "
        f"{by_category}",
        "table 1, without multilinguality": f"multilinguality counts an error rate as a score; without it "
        f"IM's mean is above IT's on {_more(without)} sets ({_range(without)})",
        "table 1, AlpacaEval 1": f"IM is above IT on {_more(first)} sets and above NEFTune on "
        f"{_more(first_noise)}; relative gains from {min(relative.values()):+.1f} to "
        f"{max(relative.values()):+.1f} %, {sum(gain > 100 for gain in relative.values())} of them above "
        "100 %",
        "table 1, AlpacaEval 2 and MT-Bench": f"IM is above IT in AlpacaEval 2 on {_more(second)} sets and "
        f"in MT-Bench on {_more(bench)}",
        "table 1, a doubt": f"IT on Less BBH ICL has the base model's score in five categories to "
        f"{same:.2f}, and {bbh['math'] - base['math']:+.2f} in math and code: a row to be checked",
    }


def relative_gains() -> dict[str, float]:
    """Return by data set how much higher IM's AlpacaEval 1 is than IT's in Table 1, percent of IT's."""
    return {one.name: one.ae1_gain_percent for one in PAPER_SETS if one.scores}


def by_ratio_in_table_1() -> tuple[float, float]:
    """Return Pearson's correlation of ln(instruction / output) over Table 1's sets with the relative gain in
    AlpacaEval 1, and with the gain of the NLP mean."""
    sets = [one for one in PAPER_SETS if one.scores]
    x = [math.log(one.ratio) for one in sets]
    means = [one.scores["IM"].mean - one.scores["IT"].mean for one in sets]
    return (
        float(pearsonr(x, [one.ae1_gain_percent for one in sets]).statistic),
        float(pearsonr(x, means).statistic),
    )


def _line(line: Line) -> str:
    low, high = line.slope_interval()
    return (
        f"{line.slope:.2f} x {line.intercept:+.2f} (R² {line.r_squared:.2f}, slope {low:.1f} to {high:.1f})"
    )


def figure_2() -> dict[str, str]:
    """Return the findings on Figure 2, whose x is a natural logarithm."""
    alpaca, nlp = by_ratio_in_table_1()
    many = [gain for rows, gain in paper_tables()["figure_2"]["by_rows"] if rows >= 10_000]
    few = [gain for rows, gain in paper_tables()["figure_2"]["by_rows"] if rows <= 4_000]
    return {
        "figure 2, left": f"as drawn {_line(fit_line(ratio_points(())))}; three points corrected by the "
        f"paper's own tables {_line(fit_line(ratio_points()))}",
        "figure 2, left, by Table 1 alone": f"over its seven sets, ln(instruction / output) has a "
        f"correlation of {alpaca:+.2f} with the relative gain in AlpacaEval 1 and of {nlp:+.2f} with the "
        "gain of the NLP mean",
        "figure 2, right": f"{_line(fit_line(size_points()))}; up to 4,000 rows {min(few):.0f} to "
        f"{max(few):.0f} %, from 10,000 on still {min(many):.0f} to {max(many):.0f} %",
    }


def overfitting() -> dict[str, str]:
    """Return the findings on Table 2 and Figure 3."""
    bleu, train, test = (
        gains(table, column)
        for table, column in (("table_2", "bleu"), ("figure_3", "train"), ("figure_3", "test"))
    )
    fewer = {data: -gain for data, gain in bleu.items()}
    lower = {data: -gain for data, gain in test.items()}
    return {
        "table 2": f"BLEU with training outputs is lower under IM on {_more(fewer)} sets "
        f"({_range(bleu)} points)",
        "figure 3": f"IM's loss is higher on training outputs on {_more(train)} sets ({_range(train)} nats) "
        f"and lower on test outputs on {_more(lower)} ({_range(test)})",
    }


def kl_and_noise() -> dict[str, str]:
    """Return the findings on Tables 3, 4 and 7."""
    base = rows_of("table_3")["none"]["base"]
    tied = [methods["IT+KL"] for methods in rows_of("table_3").values() if "IT+KL" in methods]
    off = [max(abs(one[column] - base[column]) for one in tied) for column in ("mean", "alpaca_eval_2")]
    weights = rows_of("table_7")["lima_data"]
    small = [
        max(abs(weights[f"IT+KL {w}"][c] - weights["IT"][c]) for w in ("0.01", "0.1"))
        for c in ("mean", "alpaca_eval_2")
    ]
    first, mean = (gains("table_4", column, "IM+NEFTune", "IM") for column in ("alpaca_eval_1", "mean"))
    return {
        "table 3": f"with the KL term at weight 1 both models have the untuned model's scores to "
        f"{off[0]:.2f} (NLP mean) and {off[1]:.2f} (AlpacaEval 2)",
        "table 4": f"noise on top of IM raises AlpacaEval 1 on {_more(first)} sets ({_range(first)}) and "
        f"the NLP mean on {_more(mean)} ({_range(mean)})",
        "table 7": f"KL weights of 0.01 and 0.1 change IT's scores by at most {small[0]:.2f} (NLP mean) and "
        f"{small[1]:.2f} (AlpacaEval 2)",
    }


def lengths() -> dict[str, str]:
    """Return the finding on Table 5."""
    off = max(abs(one.instruction + one.output - one.total) for one in PAPER_SETS)
    return {
        "table 5": f"instruction and output add up to the total in all {len(PAPER_SETS)} sets to {off:.2f} "
        "words"
    }


def findings() -> dict[str, str]:
    """Return every finding by its table or figure."""
    return {**table_1(), **overfitting(), **kl_and_noise(), **lengths(), **figure_2()}


def main() -> None:
    """Print the findings."""
    print("\n".join(f"{name}: {text}" for name, text in findings().items()))


if __name__ == "__main__":
    main()
