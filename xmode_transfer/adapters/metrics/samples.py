"""Samples of metrics, and their text."""

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from xmode_transfer.adapters.metrics.catalogue import Described


def alone(described: Described, value: float) -> Metric:
    family = described.family()
    family.add_metric((), value)  # type: ignore[attr-defined]
    return family


def counted(described: Described, values: Mapping[str, int]) -> Metric:
    """One sample for each value of the only label."""
    return labelled(described, {(label,): value for label, value in values.items()})


def labelled(described: Described, values: Mapping[tuple[str, ...], int]) -> Metric:
    family = described.family()
    for labels, value in sorted(values.items()):
        family.add_metric(labels, value)  # type: ignore[attr-defined]
    return family


class _Fixed(Collector):
    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        return self._families


def text(families: list[Metric]) -> bytes:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Fixed(families))
    return generate_latest(registry)
