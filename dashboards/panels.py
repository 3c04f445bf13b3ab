"""The few kinds of panel our dashboards are made of, on top of grafana-foundation-sdk.

Queries are written in a short form of PromQL, see `promql`: every selector follows the job and instance variables, whose
labels exist on scraped and on pushed series alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Protocol, Self, TypeVar

from grafana_foundation_sdk.builders import common, heatmap, prometheus, stat, table, timeseries
from grafana_foundation_sdk.builders import dashboard as boards
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common as shapes
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

SOURCE = model.DataSourceRef(type_val="prometheus", uid="${datasource}")

Queries = Mapping[str, str]
"""Expressions by legend."""
Panels = Mapping[str, Iterable[Builder[model.Panel]]]
"""Panels by the title of their row."""


class _Common(Protocol):
    """What all panel builders can do; the generated builders share no base class."""

    def title(self, title: str) -> Self: ...
    def description(self, description: str) -> Self: ...
    def unit(self, unit: str) -> Self: ...
    def datasource(self, datasource: model.DataSourceRef) -> Self: ...
    def span(self, w: int) -> Self: ...
    def height(self, h: int) -> Self: ...
    def no_value(self, no_value: str) -> Self: ...


_P = TypeVar("_P", bound=_Common)


def promql(short: str) -> str:
    """Add to each ``{...}`` the job and instance chosen, and to each ``[]`` the interval that fits the scrape interval and the zoom."""
    scoped = short.replace("{", '{job=~"$job", instance=~"$instance", ').replace(", }", "}")
    return scoped.replace("[]", "[$__rate_interval]")


def stats(title: str, description: str, queries: Queries, units: Mapping[str, str] = MappingProxyType({})) -> Builder[model.Panel]:
    """Big numbers, one per query; *units* of those that do not just count, by legend."""
    panel = _common(stat.Panel(), title, description, "short", 24, 4).graph_mode(shapes.BigValueGraphMode.NONE)
    for legend, unit in units.items():
        panel.override_by_name(legend, [model.DynamicConfigValue("unit", unit)])
    for target in _targets(queries):
        panel.with_target(target.instant())
    return panel


def lines(title: str, description: str, queries: Queries, unit: str, width: int = 8, *, stacked: bool = False) -> Builder[model.Panel]:
    """Values over time, from zero, with a legend that also gives the last value."""
    panel = _common(timeseries.Panel(), title, description, unit, width, 8).min(0).fill_opacity(30 if stacked else 10)
    legend = common.VizLegendOptions().display_mode(shapes.LegendDisplayMode.TABLE).placement(shapes.LegendPlacement.BOTTOM)
    panel.legend(legend.calcs(["lastNotNull"]))
    panel.tooltip(common.VizTooltipOptions().mode(shapes.TooltipDisplayMode.MULTI).sort(shapes.SortOrder.DESCENDING))
    if stacked:
        panel.stacking(common.StackingConfig().mode(shapes.StackingMode.NORMAL))
    for target in _targets(queries):
        panel.with_target(target)
    return panel


def rows(
    title: str, description: str, expr: str, columns: Iterable[str], value: str = "", width: int = 24, unit: str = "short"
) -> Builder[model.Panel]:
    """The series of an instant query as a table: one row each, labels as *columns*, the value last if it has a name."""
    order = [*columns, "Value"] if value else list(columns)
    hidden = ["Time", "__name__", *([] if value else ["Value"])]
    organize = {
        "excludeByName": dict.fromkeys(hidden, True),
        "indexByName": {name: index for index, name in enumerate(order)},
        "renameByName": {"Value": value} if value else {},
    }
    panel = _common(table.Panel(), title, description, unit, width, 9).show_header(show_header=True)
    panel.with_target(_target("A", "", expr).instant().format(PromQueryFormat.TABLE))
    # Only the named columns: the labels a collector or a scrape job adds differ from site to site.
    panel.with_transformation(model.DataTransformerConfig(id_val="filterFieldsByName", options={"include": {"names": order}}))
    panel.with_transformation(model.DataTransformerConfig(id_val="organize", options=organize))
    return panel


def heat(title: str, description: str, expr: str, width: int = 8) -> Builder[model.Panel]:
    """A histogram over time; *expr* gives the increase of each bucket, by ``le``, which is in seconds."""
    panel = _common(heatmap.Panel(), title, description, "short", width, 8).calculate(calculate=False)
    panel.y_axis(heatmap.YAxisConfig().unit("s"))
    return panel.with_target(_target("A", "{{le}}", expr).format(PromQueryFormat.HEATMAP))


def dashboard(uid: str, title: str, description: str, tags: list[str], present: str, panels: Panels) -> model.Dashboard:
    """*present* is a metric that every agent of interest has: it fills the job and instance variables."""
    board = boards.Dashboard(title).uid(uid).description(description).tags(["otel-hostmetrics", *tags])
    board.readonly().tooltip(model.DashboardCursorSync.CROSSHAIR).refresh("30s").time("now-1h", "now").timezone("browser")
    board.with_variable(boards.DatasourceVariable("datasource").label("Data source").type("prometheus"))
    board.with_variable(_variable("job", f"label_values({present}, job)"))
    board.with_variable(_variable("instance", f'label_values({present}{{job=~"$job"}}, instance)'))
    for row, members in panels.items():
        board.with_row(boards.Row(row))
        for member in members:
            board.with_panel(member)
    built = board.build()
    for number, panel in enumerate(built.panels or [], 1):
        panel.id_val = number
    return built


def _variable(name: str, query: str) -> boards.QueryVariable:
    chosen = model.VariableOption(selected=True, text=["All"], value=["$__all"])
    variable = boards.QueryVariable(name).label(name.title()).datasource(SOURCE).query({"query": query, "refId": name})
    variable.multi(multi=True).include_all(include_all=True).all_value(".+").current(chosen)
    return variable.refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(model.VariableSort.ALPHABETICAL_ASC)


def _common(panel: _P, title: str, description: str, unit: str, width: int, height: int) -> _P:
    return panel.title(title).description(description).unit(unit).datasource(SOURCE).span(width).height(height).no_value("none")


def _targets(queries: Queries) -> list[prometheus.Dataquery]:
    return [_target(chr(ord("A") + index), legend, expr) for index, (legend, expr) in enumerate(queries.items())]


def _target(ref_id: str, legend: str, expr: str) -> prometheus.Dataquery:
    return prometheus.Dataquery().ref_id(ref_id).datasource(SOURCE).expr(promql(expr)).legend_format(legend).range()
