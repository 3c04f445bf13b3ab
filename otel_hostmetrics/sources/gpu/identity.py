"""Who a GPU is, as attributes of its points."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from otel_hostmetrics.catalogue import gpu as rows
from otel_hostmetrics.catalogue.model import Attributes, AttributeValue, Metric

_SEED = frozenset(rows.SEED)


class Identity(NamedTuple):
    """A GPU or a part of one. *bus_id* and *uuid* are what gpu_exporter calls gpu_id and gpu_uuid."""

    id: str
    name: str
    vendor: str
    bus_id: str
    uuid: str
    parent: str = ""

    def attributes(self, metric: Metric, more: Attributes) -> dict[str, AttributeValue]:
        """What a point of *metric* carries: the seed's labels, or those of hw.* that the row knows."""
        if metric in _SEED:
            return {"gpu_id": self.bus_id, "gpu_name": self.name, "gpu_uuid": self.uuid, **more}
        mine: Mapping[str, AttributeValue] = {
            rows.ID: self.id, rows.NAME: self.name, rows.VENDOR: self.vendor, rows.PARENT: self.parent, "hw.type": "gpu",
        }  # fmt: skip
        known = frozenset((*metric.attributes, *metric.optional))
        return {**{key: value for key, value in mine.items() if key in known and value}, **more}
