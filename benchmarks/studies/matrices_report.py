"""What the study of every p on singular values chooses, and its tables and figure."""

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from benchmarks.reporting.statistics import difference, is_at_an_end, mean_std, measure_of, scores
from benchmarks.reporting.tables import table_of

OPTIMIZER, OURS = "schatten_sgdm", "Schatten SGDM"
DRAWN = (OURS, "Muon", "Muon of all matrices", "AdamW", "Lion", "LPSGDM at unit RMS")
CHOICE = ["dataset", "optimizer", "method", "p", "learning_rate", "weight_decay"]


def best(frame: pd.DataFrame) -> pd.DataFrame:
    """Returns a row for each task, method and p: the best rate and decay, and whether it is at an end."""
    found = scores(frame, CHOICE).reset_index()
    rows = found.loc[found.groupby(CHOICE[:4], sort=False).held_out_nll.idxmin()]
    tried = frame.groupby(["dataset", "method"]).learning_rate.unique()
    ends = [is_at_an_end(row.learning_rate, tried[row.dataset, row.method]) for row in rows.itertuples()]
    return rows.assign(at_an_end=ends)


def recipe(frame: pd.DataFrame) -> tuple[str, float]:
    """Returns the p and the rate that are best for all tasks, without weight decay."""
    ours = frame[(frame.method == OURS) & (frame.weight_decay == 0)]
    found = scores(ours, ["p", "learning_rate", "dataset"]).unstack("dataset")
    p, rate = (found / found.min()).mean(axis=1, skipna=False).idxmin()
    return str(p), float(rate)


def contenders(frame: pd.DataFrame) -> pd.DataFrame:
    """Returns what is judged on test data: the recipe, and each optimizer, and p = infinity, at its best."""
    p, rate = recipe(frame)
    tasks = list(dict.fromkeys(frame.dataset))
    recipes = [dict(zip(CHOICE, (task, OPTIMIZER, OURS, p, rate, 0.0), strict=True)) for task in tasks]
    tuned = best(frame)
    tuned = tuned[(tuned.optimizer != OPTIMIZER) | (tuned.method == OURS)]
    is_best = tuned.index.isin(tuned.groupby(["dataset", "optimizer"], sort=False).held_out_nll.idxmin())
    chosen = tuned[is_best | ((tuned.method == OURS) & (tuned.p == "∞"))]
    named = pd.DataFrame(recipes).assign(name=f"the recipe: {OURS}, p {p}")
    return pd.concat([named, chosen[CHOICE].assign(name=_name)]).sort_values(
        "dataset", key=lambda names: names.map(tasks.index), kind="stable"
    )


def _name(frame: pd.DataFrame) -> pd.Series:
    return frame.method.where(frame.p == "none", frame.method + ", p " + frame.p)


def validation_table(frame: pd.DataFrame) -> str:
    """Returns what each method and p reaches on validation data at its best rate and decay."""
    by_choice = dict(iter(frame.groupby(CHOICE, sort=False)))
    rows = []
    for _, row in best(frame).iterrows():
        same = by_choice[tuple(row[CHOICE])]
        values = {"NLL": mean_std(same.held_out_nll, ".4f"), "top-1, %": mean_std(same.top1, ".2f")}
        rows.append(_told(row) | values | {"seeds": len(same)})
    return table_of(pd.DataFrame(rows))


def _told(row: pd.Series) -> dict[str, str]:
    edge = " (edge)" if row.get("at_an_end", False) else ""
    return {
        "task": row.dataset,
        "optimizer": row.get("name", row.method),
        **({} if "name" in row else {"p": row.p}),
        "learning rate": f"{row.learning_rate:g}{edge}",
        "weight decay": f"{row.weight_decay:g}",
    }


def test_table(frame: pd.DataFrame, tested: pd.DataFrame) -> str:
    """Returns what was chosen reaches on the test data, beside the recipe and Muon."""
    by_choice = dict(iter(tested.groupby(CHOICE, sort=False)))
    rows = []
    for dataset, chosen in contenders(frame).groupby("dataset", sort=False):
        references = {"the recipe": chosen.iloc[0], "Muon": chosen[chosen.optimizer == "muon"].iloc[0]}
        for _, row in chosen.iterrows():
            same = by_choice[tuple(row[CHOICE])]
            values = {"NLL": mean_std(same.held_out_nll, ".4f"), "top-1, %": mean_std(same.top1, ".2f")}
            for name, other in references.items():
                of_other = by_choice[tuple(other[CHOICE])]
                versus = difference(measure_of(str(dataset)), same.shown, of_other.shown)
                values[f"minus {name} (95 %)"] = "" if same is of_other else versus
            rows.append(_told(row) | values)
    return table_of(pd.DataFrame(rows))


def draw(frame: pd.DataFrame) -> Figure:
    """Returns the validation NLL by learning rate: a panel for each task, a line for each optimizer."""
    # Variants and annealed p are in the table: their lines would lie on those of ours.
    plain = (frame.method != OURS) | ~frame.p.str.contains("→")
    named = _at_best_decay(frame[plain & frame.method.isin(DRAWN)]).assign(optimizer=_name)
    shown = named.sort_values("method", key=lambda names: names.map(DRAWN.index), kind="stable")
    names = list(dict.fromkeys(shown.optimizer))
    ours = sum(name.startswith(OURS) for name in names)
    colors = [
        *sns.color_palette("crest", ours),
        "tab:red",
        "tab:pink",
        "tab:orange",
        "tab:purple",
        "tab:brown",
    ]
    grid = sns.relplot(
        shown,
        kind="line",
        x="learning_rate",
        y="held_out_nll",
        hue="optimizer",
        style="optimizer",
        palette=colors[: len(names)],
        col="dataset",
        col_order=list(dict.fromkeys(frame.dataset)),
        col_wrap=2,
        height=2.8,
        aspect=1.5,
        markers=True,
        dashes=False,
        errorbar="sd",
        err_style="bars",
        facet_kws={"sharey": False},
    )
    for task, axes in grid.axes_dict.items():
        means = scores(shown[shown.dataset == task], ["optimizer", "learning_rate"])
        bottom, top = means.min(), means.quantile(0.8)
        margin = 0.1 * (top - bottom)
        axes.set(
            xscale="log",
            ylim=(bottom - margin, top + margin),
            xlabel="learning rate",
            ylabel="validation NLL",
        )
        axes.set_title(task)
        axes.grid(alpha=0.3)
    grid.legend.set_title(None)
    grid.figure.subplots_adjust(wspace=0.25)
    return grid.figure


def _at_best_decay(frame: pd.DataFrame) -> pd.DataFrame:
    """Returns the runs with the weight decay that is best for their learning rate."""
    found = scores(frame, CHOICE).reset_index()
    rows = found.loc[found.groupby(CHOICE[:5], sort=False).held_out_nll.idxmin(), CHOICE]
    return frame.merge(rows, on=CHOICE)


def one_choice_table(frame: pd.DataFrame) -> str:
    """Returns the one choice for all tasks that each optimizer would have, without weight decay."""
    rates = frame[frame.weight_decay == 0]
    found = scores(rates, ["method", "p", "learning_rate", "dataset"]).unstack("dataset")
    ratios = found / found.min()
    ratios["mean"] = ratios.mean(axis=1, skipna=False)
    chosen = ratios.dropna().reset_index()
    rows = chosen.loc[chosen.groupby("method")["mean"].idxmin()].sort_values("mean")
    tasks = list(dict.fromkeys(frame.dataset))
    shown = rows.assign(learning_rate=rows.learning_rate.map("{:g}".format)).rename(
        columns={"learning_rate": "learning rate"}
    )
    shown[[*tasks, "mean"]] = shown[[*tasks, "mean"]].map("{:.3f}".format)
    return table_of(shown[["method", "p", "learning rate", *tasks, "mean"]])


def means(frame: pd.DataFrame) -> pd.DataFrame:
    """Returns what each choice reaches on validation data: the mean over its seeds."""
    groups = frame.groupby(CHOICE, sort=False)
    found = groups[["held_out_nll", "top1"]].agg(lambda values: values.to_numpy().mean()).round(6)
    return found.assign(seeds=groups.size()).reset_index()
