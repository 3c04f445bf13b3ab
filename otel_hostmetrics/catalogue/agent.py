"""What the agent says of itself: its sources, its looking for names of workloads, its exports, its process, its HTTP server."""

from __future__ import annotations

from otel_hostmetrics.catalogue.model import Kind, Metric

SOURCE = "otel_hostmetrics.source.name"
STATE = "otel_hostmetrics.source.state"
LOOKUP = "otel_hostmetrics.lookup.name"  # docker, podman, cri, kubelet, pod_resources, bundles, pod_logs
WORKLOAD_TYPE, NAMED = "workload.type", "otel_hostmetrics.workload.named"
EXPORTER = "otel_hostmetrics.exporter.name"
ERROR_TYPE = "error.type"  # semantic conventions: a Reason, a gRPC status or an HTTP status; absent on success
ROUTE, METHOD, STATUS_CODE = "http.route", "http.request.method", "http.response.status_code"

# A cycle is micro- to milliseconds on a healthy host, and up to the deadline on a sick one.
_CYCLE_SECONDS = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
# The semantic conventions' advice for http.server.request.duration.
_HTTP_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)

SOURCE_DURATION = Metric(
    "otel_hostmetrics.source.duration", Kind.HISTOGRAM, "s", "Time one reading of a source took.", "monotonic clock around Source.read()",
    (SOURCE,), integer=False, boundaries=_CYCLE_SECONDS,
)  # fmt: skip
SOURCE_SUCCESS = Metric(
    "otel_hostmetrics.source.success", Kind.GAUGE, "", "1 if the source's last reading succeeded, also in part; 0 if not.",
    "Status of the cycle; absent while this host has nothing for the source", (SOURCE,),
)  # fmt: skip
SOURCE_STATUS = Metric(
    "otel_hostmetrics.source.status", Kind.GAUGE, "", "1 for the state a source is in, with the reason where it is not ok.",
    "Status of the cycle", (SOURCE, STATE), (ERROR_TYPE,),
)  # fmt: skip
SOURCE_PROBLEMS = Metric(
    "otel_hostmetrics.source.problems", Kind.COUNTER, "{problem}", "Values that could not be read, by reason.", "Reading.problems",
    (SOURCE, ERROR_TYPE),
)  # fmt: skip
SOURCE_SERIES = Metric(
    "otel_hostmetrics.source.series", Kind.UPDOWNCOUNTER, "{series}", "Series the source's last reading had.", "Reading.columns",
    (SOURCE,),
)  # fmt: skip
SOURCE_SERIES_DROPPED = Metric(
    "otel_hostmetrics.source.series.dropped", Kind.UPDOWNCOUNTER, "{series}", "Series of the last reading cut off by general.max_series.",
    "Reading.dropped", (SOURCE,),
)  # fmt: skip
WORKLOADS = Metric(
    "otel_hostmetrics.workloads", Kind.UPDOWNCOUNTER, "{workload}",
    "Containers and pods that points belonged to lately, by whether more than their id is known.", "cgroups of processes and points",
    (WORKLOAD_TYPE, NAMED),
)  # fmt: skip
LOOKUPS = Metric(
    "otel_hostmetrics.workload.lookups", Kind.COUNTER, "{lookup}", "Questions for the names of workloads, by outcome.",
    "the files of a runtime, its socket, the kubelet", (LOOKUP,), (ERROR_TYPE,),
)  # fmt: skip
LOOKUP_DURATION = Metric(
    "otel_hostmetrics.workload.lookup.duration", Kind.HISTOGRAM, "s", "Time one question for the names of workloads took.",
    "monotonic clock around it, in a thread beside the cycle", (LOOKUP,), (ERROR_TYPE,), integer=False, boundaries=_CYCLE_SECONDS,
)  # fmt: skip
EXPORT_REQUESTS = Metric(
    "otel_hostmetrics.export.requests", Kind.COUNTER, "{request}", "Attempts to send a request, by outcome.", "gRPC status of the call",
    (EXPORTER,), (ERROR_TYPE,),
)  # fmt: skip
EXPORT_POINTS = Metric(
    "otel_hostmetrics.export.points", Kind.COUNTER, "{data_point}", "Points the collector accepted (no error.type) or did not take.",
    "acknowledged requests less rejected_data_points; requests given up", (EXPORTER,), (ERROR_TYPE,),
)  # fmt: skip
EXPORT_DURATION = Metric(
    "otel_hostmetrics.export.duration", Kind.HISTOGRAM, "s", "Time one attempt to send a request took.",
    "monotonic clock around the call", (EXPORTER,), (ERROR_TYPE,), integer=False, boundaries=_HTTP_SECONDS,
)  # fmt: skip
EXPORT_QUEUE_SIZE = Metric(
    "otel_hostmetrics.export.queue.size", Kind.UPDOWNCOUNTER, "By", "Encoded requests waiting for the collector.", "the sender's queue",
    (EXPORTER,),
)  # fmt: skip
EXPORT_QUEUE_CAPACITY = Metric(
    "otel_hostmetrics.export.queue.capacity", Kind.UPDOWNCOUNTER, "By", "Limit of the queue; the oldest request is dropped beyond it.",
    "otlp.queue_bytes", (EXPORTER,),
)  # fmt: skip
EXPORT_DROPPED = Metric(
    "otel_hostmetrics.export.dropped", Kind.COUNTER, "{request}", "Requests given up: queue full, refused for good, or shutdown.",
    "the sender", (EXPORTER, ERROR_TYPE),
)  # fmt: skip
HTTP_DURATION = Metric(
    "http.server.request.duration", Kind.HISTOGRAM, "s", "Duration of HTTP server requests.",
    "monotonic clock from the request's last byte to the response's last", (METHOD, ROUTE, STATUS_CODE), origin="semconv", integer=False,
    boundaries=_HTTP_SECONDS, stability="stable",
)  # fmt: skip
HTTP_CONNECTIONS = Metric(
    "otel_hostmetrics.http.connections", Kind.UPDOWNCOUNTER, "{connection}", "Connections open on the scrape endpoint.",
    "the HTTP server",
)  # fmt: skip
HTTP_REJECTED = Metric(
    "otel_hostmetrics.http.rejected", Kind.COUNTER, "{connection}", "Connections closed without an answer, by cause.",
    "the HTTP server: limit, timeout, not HTTP", (ERROR_TYPE,),
)  # fmt: skip
CPU_TIME = Metric(
    "process.cpu.time", Kind.COUNTER, "s", "CPU time this process has used.", "getrusage(2)", ("cpu.mode",), origin="semconv",
    integer=False,
)  # fmt: skip
MEMORY_USAGE = Metric(
    "process.memory.usage", Kind.UPDOWNCOUNTER, "By", "Resident memory of this process.", "/proc/self/stat, field 24", origin="semconv",
)  # fmt: skip
# Not process.unix.file_descriptor.count and process.thread.count: to Prometheus a name that ends in _count is a part of
# a histogram, and `promtool check metrics` refuses it elsewhere.
DESCRIPTORS = Metric(
    "otel_hostmetrics.process.file_descriptors", Kind.UPDOWNCOUNTER, "{file_descriptor}", "File descriptors this process holds.",
    "/proc/self/fd",
)  # fmt: skip
THREADS = Metric(
    "otel_hostmetrics.process.threads", Kind.UPDOWNCOUNTER, "{thread}", "Threads of this process.", "/proc/self/stat, field 20",
)  # fmt: skip
START_TIME = Metric(
    "otel_hostmetrics.process.start_time", Kind.GAUGE, "s", "Unix time at which this process started.",
    "/proc/self/stat, field 22, with the boot time", integer=False,
)  # fmt: skip

ALL = (
    SOURCE_DURATION, SOURCE_SUCCESS, SOURCE_STATUS, SOURCE_PROBLEMS, SOURCE_SERIES, SOURCE_SERIES_DROPPED,
    WORKLOADS, LOOKUPS, LOOKUP_DURATION, EXPORT_REQUESTS, EXPORT_POINTS, EXPORT_DURATION, EXPORT_QUEUE_SIZE, EXPORT_QUEUE_CAPACITY,
    EXPORT_DROPPED, HTTP_DURATION, HTTP_CONNECTIONS, HTTP_REJECTED, CPU_TIME, MEMORY_USAGE, DESCRIPTORS, THREADS, START_TIME,
)  # fmt: skip
