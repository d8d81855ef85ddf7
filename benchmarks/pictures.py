"""Draw results, as SVG, with matplotlib (dependency group ``bench``)."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

INK = "#24292f"
OURS = "#1f6feb"
THEIRS = "#9aa4af"


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar, with how far the rounds reached."""

    group: str
    label: str
    value: float
    low: float
    high: float


def bars(all_bars: Sequence[Bar], unit: str, *, log: bool = False) -> str:
    """Horizontal bars, a panel for each group; ours stand out."""
    groups = list(dict.fromkeys(bar.group for bar in all_bars))
    most = max(sum(bar.group == group for bar in all_bars) for group in groups)
    figure, axes = _figure(len(groups), width=9, height=(0.32 * most + 0.55) * len(groups) + 0.5)
    for axis, group in zip(axes, groups, strict=True):
        shown = [bar for bar in all_bars if bar.group == group][::-1]
        axis.barh(
            [bar.label for bar in shown],
            [bar.value for bar in shown],
            color=[OURS if bar.label == "pglapse" else THEIRS for bar in shown],
            xerr=[[bar.value - bar.low for bar in shown], [bar.high - bar.value for bar in shown]],
            error_kw={"ecolor": INK, "elinewidth": 0.8, "capsize": 2},
        )
        if log:
            axis.set_xscale("log")
            axis.set_xlim(
                left=max(1.0, min(bar.low for bar in all_bars) / 2),
                right=3 * max(bar.high for bar in all_bars),
            )
        for at, bar in enumerate(shown):
            axis.annotate(
                f"{bar.value:,.0f}",
                (bar.high, at),
                (6, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
            )
        axis.set_title(group, loc="left", fontsize=10, color=INK)
    axes[-1].set_xlabel(unit, fontsize=9)
    return _svg(figure)


def lines(series: Sequence[tuple[str, Sequence[tuple[float, float]]]], across: str, up: str) -> str:
    """Lines over time, from zero."""
    figure, axes = _figure(1, width=9, height=3)
    for label, points in series:
        axes[0].plot([x for x, _ in points], [y for _, y in points], label=label, color=OURS, linewidth=1.5)
    axes[0].set_ylim(bottom=0)
    axes[0].set_xlabel(across, fontsize=9)
    axes[0].set_ylabel(up, fontsize=9)
    return _svg(figure)


def _figure(rows: int, width: float, height: float) -> tuple[Any, list[Any]]:
    from matplotlib.figure import Figure  # noqa: PLC0415 (measuring needs no matplotlib)

    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    axes = [figure.add_subplot(rows, 1, at + 1) for at in range(rows)]
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=9, colors=INK)
    return figure, axes


def _svg(figure: Any) -> str:
    """The picture as text, the same for the same data."""
    import matplotlib as mpl  # noqa: PLC0415 (as above)

    with mpl.rc_context({"svg.hashsalt": "pglapse", "svg.fonttype": "path"}):
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + "\n"
