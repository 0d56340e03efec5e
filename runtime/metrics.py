"""What the /metrics of both processes share: names, the type of the page, gauges of the moment.

Gauges are asked for when somebody reads the page, so a node that nobody watches pays nothing for
them. Names begin with `tos_`, units stand in them.
"""

from collections.abc import Callable, Iterator, Mapping

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Gauges = Callable[[], Mapping[str, int | Mapping[str, int]]]
"""name without its prefix -> value at this moment, or values by label `name`"""


class MomentGauges(Collector):
    """Values that are asked for when the page is made."""

    def __init__(self, prefix: str, gauges: Gauges) -> None:
        """Show these, with their names behind `prefix`."""
        self._prefix = prefix
        self._gauges = gauges

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Name nothing ahead: the registry would otherwise ask for values at once."""
        return iter(())

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield one gauge per name."""
        for name, value in sorted(self._gauges().items()):
            text = name.replace("_", " ")
            if isinstance(value, int):
                yield GaugeMetricFamily(self._prefix + name, text, value)
                continue
            family = GaugeMetricFamily(self._prefix + name, text, labels=["name"])
            for label, number in sorted(value.items()):
                family.add_metric([label], number)
            yield family
