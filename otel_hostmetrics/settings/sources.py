"""Sections of the sources, and of what is said about whose their points are."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from otel_hostmetrics.settings.section import Seconds, Section


class Bpf(Section, frozen=True):
    """The BPF source."""

    engine: Annotated[
        Literal["auto", "iterator", "ids"],
        Meta(
            description="iterator: BPF iterators alone (CAP_BPF+CAP_PERFMON; no map memory); ids: system calls alone (CAP_SYS_ADMIN; "
            "no map entries); auto: iterators, and system calls for what they lack"
        ),
    ] = "auto"
    stats: Annotated[
        Literal["off", "on", "sampled"],
        Meta(description="Run time and run count of programs: never enable, always, or one interval in stats_every"),
    ] = "off"
    stats_every: Annotated[int, Meta(ge=2, description="With stats: sampled, one interval out of this many is measured")] = 6
    aggregate: Annotated[bool, Meta(description="One series per type and name instead of one per object id")] = False
    relations: Annotated[bool, Meta(description="Which program uses which map")] = True
    holders: Annotated[bool, Meta(description="Which process holds each object")] = True
    pins: Annotated[bool, Meta(description="Paths under which objects are pinned")] = True
    cgroups: Annotated[bool, Meta(description="Programs attached to cgroups")] = True
    slow_interval: Annotated[Seconds, Meta(description="How often holders, pins, cgroups and map memory are looked up")] = Seconds(60)


class Rdma(Section, frozen=True):
    """The RDMA source."""

    mode: Annotated[Literal["auto", "ib", "roce"], Meta(description="Ports to read: all, InfiniBand only, or RoCE only")] = "auto"
    devices: Annotated[tuple[str, ...], Meta(description="Devices (mlx5_0) and ports (mlx5_0/1) to read, shell patterns; empty = all")] = ()
    exclude_devices: Annotated[tuple[str, ...], Meta(description="Devices and ports that are never read, shell patterns")] = ()
    slow_interval: Annotated[
        Seconds, Meta(description="How often slow_counters, rates, flow control settings and optional counters are read")
    ] = Seconds(30)
    slow_counters: Annotated[
        tuple[str, ...], Meta(description="Counters that change rarely and cost a firmware command each, DIRECTORY/NAME, shell patterns")
    ] = ("counters/*error*", "counters/link_*", "counters/VL15_dropped")
    descriptors: Annotated[int, Meta(ge=0, description="Counter files kept open; what is beyond is opened at each reading")] = 4096
    rescan_interval: Annotated[Seconds, Meta(description="How often devices are looked for without a sign of change")] = Seconds(60)
    netlink: Annotated[bool, Meta(description="Ask the kernel by RDMA netlink, for what sysfs lacks and where it costs less")] = True
    resources: Annotated[bool, Meta(description="QPs, CQs, MRs, PDs, contexts: how many, and whose")] = True
    qps: Annotated[bool, Meta(description="Queue pairs per process; costs one query of the device for each")] = False
    qp_counters: Annotated[bool, Meta(description="Counter sets of queue pairs, where a mode is set")] = True
    ethtool: Annotated[bool, Meta(description="Pause frames, PCIe and physical errors of RoCE ports, from ethtool statistics")] = True
    ethtool_stats: Annotated[tuple[str, ...], Meta(description="Statistics to take from ethtool, shell patterns")] = (
        "[rt]x_prio[0-7]_pause*", "rx_prio[0-7]_*discard*", "rx_prio[0-7]_marked", "[rt]x_global_pause*", "tx_pause_storm_*",
        "rx_discards_phy", "tx_discards_phy", "*out_of_buffer", "outbound_pci_*", "[rt]x_pci_signal_integrity", "rx_*_err*_phy",
        "rx_crc_errors_phy", "rx_corrected_bits_phy", "link_down_events_phy", "module_*", "[rt]x_vport_rdma_*",
    )  # fmt: skip
    dcb: Annotated[bool, Meta(description="Priority flow control settings of RoCE ports, by DCB netlink")] = True
    modules: Annotated[
        bool, Meta(description="Modules and cables: vendor, serial, temperature, power of light; slow I2C, needs CAP_NET_ADMIN")
    ] = False
    modules_interval: Annotated[Seconds, Meta(description="How often they are read, beside the agent's cycles")] = Seconds(300)
    facts: Annotated[bool, Meta(description="Topology and configuration, for snapshots")] = True
    facts_interval: Annotated[Seconds, Meta(description="How often they are looked up")] = Seconds(300)
    fabric: Annotated[
        tuple[Literal["ibnetdiscover", "perfquery", "mlxconfig"], ...],
        Meta(description="Tools to run, beside the agent's cycles, for what other nodes and the firmware tell; empty = none"),
    ] = ()
    fabric_interval: Annotated[Seconds, Meta(description="How often they are run")] = Seconds(600)
    fabric_timeout: Annotated[Seconds, Meta(description="How long each may take before it is killed")] = Seconds(30)


class Rapl(Section, frozen=True):
    """The RAPL source: energy of processors, memory and host."""

    energy_source: Annotated[
        Literal["auto", "powercap", "perf", "hwmon", "msr", "off"],
        Meta(description="Where energy is read from; auto: powercap, else the perf power PMU (CAP_PERFMON), else hwmon; msr only if named"),
    ] = "auto"
    plausible_power: Annotated[
        float,
        Meta(
            ge=1,
            le=100_000,
            description="W a zone can draw at most: what takes more is a reset of its counter; psys and host 10 times that",
        ),
    ] = 1000.0
    psys_is_host: Annotated[bool, Meta(description="Report the psys zone as hw.host.energy: right only where the platform wires it so")] = (
        False
    )
    slow_interval: Annotated[Seconds, Meta(description="How often power limits are read, and zones looked for that came or went")] = (
        Seconds(60)
    )


class Gpu(Section, frozen=True):
    """The GPU source."""

    nvml_library: Annotated[str, Meta(description="Path of libnvidia-ml.so.1; empty = where the driver's installers put it")] = ""
    nvidia_smi: Annotated[Literal["auto", "off"], Meta(description="Whether to run nvidia-smi where NVML cannot be loaded")] = "auto"
    nvidia_smi_interval: Annotated[Seconds, Meta(description="Time between two runs of nvidia-smi")] = Seconds(15)
    processes: Annotated[bool, Meta(description="Memory and utilization by process")] = True
    xid: Annotated[bool, Meta(description="Count XID errors of NVIDIA GPUs, in a thread of its own")] = True
    profiling: Annotated[bool, Meta(description="Activity of SMs, tensor cores and memory, of NVIDIA GPUs from Hopper on")] = False
    xe_engines: Annotated[
        bool, Meta(description="Utilization of Intel GPUs with the driver xe, which neither sleep nor enter C6 while it is counted")
    ] = False
    pcie_throughput: Annotated[bool, Meta(description="PCI Express traffic by a call that takes 40 ms per NVIDIA GPU")] = False
    release: Annotated[
        Literal["auto", "never"], Meta(description="auto: give NVML back while nobody uses GPUs that may sleep (power/control is auto)")
    ] = "auto"
    release_file: Annotated[str, Meta(description="While this file exists NVML is shut down, for GPU resets and driver upgrades")] = (
        "/run/otel-hostmetrics/release-gpus"
    )
    slow_interval: Annotated[Seconds, Meta(description="How often limits, error counts, link state and MIG instances are read")] = Seconds(
        60
    )


class Attribution(Section, frozen=True):
    """Energy by workload, where the sources measure energy."""

    enabled: Annotated[bool, Meta(description="Split energy by container, pod, systemd service and other cgroups")] = True
    processes: Annotated[
        int, Meta(ge=0, le=1000, description="Also tell of that many processes, those that used most; reads /proc/PID/stat of all")
    ] = 0
    gpu_idle_power: Annotated[
        float,
        Meta(ge=0, le=10_000, description="W that each GPU takes while nobody uses it; 0 = the least seen while no process was on it"),
    ] = 0.0
    max_cgroups: Annotated[int, Meta(ge=1, description="Cgroups that are read; those beyond count as the ones around them")] = 20_000
    descriptors: Annotated[
        int, Meta(ge=0, description="Files kept open, but at most half of what the process may open; those beyond cost more CPU time")
    ] = 20_000


class Workloads(Section, frozen=True):
    """Whose each point is: container and pod. Paths are the host's, below path.root."""

    enabled: Annotated[bool, Meta(description="Tell the container and pod of each point, where it has one")] = True
    resource: Annotated[
        tuple[str, ...], Meta(description="Attributes of a workload's OTLP Resource, shell patterns; one Resource for each workload")
    ] = ("container.*", "k8s.*")
    labels: Annotated[tuple[str, ...], Meta(description="Those of them that are labels on the Prometheus page, shell patterns")] = (
        "container.id", "container.name", "k8s.namespace.name", "k8s.pod.name", "k8s.container.name", "k8s.pod.label.*",
    )  # fmt: skip
    points: Annotated[
        tuple[str, ...], Meta(description="Those of them that are also on each point, for backends that drop Resources, shell patterns")
    ] = ()
    pod_labels: Annotated[tuple[str, ...], Meta(description="Labels of pods that become k8s.pod.label.KEY, shell patterns")] = ()
    descriptors: Annotated[int, Meta(ge=0, description="/proc/PID/cgroup files kept open; what is beyond is opened at each reading")] = 4096
    interval: Annotated[Seconds, Meta(description="How often runtimes and the kubelet are asked; a new container is looked up at once")] = (
        Seconds(30)
    )
    bundles: Annotated[
        tuple[str, ...], Meta(description="Directories in which runtimes keep one for each container, shell patterns; empty = do not look")
    ] = (
        "/run/containerd/io.containerd.runtime.v2.task/*",
        "/run/k3s/containerd/io.containerd.runtime.v2.task/*",
        "/var/lib/containers/storage/overlay-containers",
        "/var/lib/docker/containers",
    )
    pod_logs: Annotated[str, Meta(description="Directory whose names tell of pods and their containers; empty = do not look")] = "/var/log"
    cri: Annotated[str, Meta(description="Socket of the container runtime (CRI v1): full control of the node; empty = do not ask")] = ""
    podman: Annotated[str, Meta(description="Socket of podman's service; empty = do not ask")] = ""
    docker: Annotated[str, Meta(description="Socket of dockerd; empty = do not ask")] = ""
    kubelet: Annotated[str, Meta(description="https://HOST:10250 of this node's kubelet; needs nodes/pods; empty = do not ask")] = ""
    kubelet_token: Annotated[str, Meta(description="File with the bearer token, where the agent runs; read for each request")] = (
        "/var/run/secrets/kubernetes.io/serviceaccount/token"  # noqa: S105 - a path
    )
    kubelet_ca: Annotated[
        str, Meta(description="PEM file of the CA that signed the kubelet's certificate, where the agent runs; empty = the system's")
    ] = ""
    kubelet_verify: Annotated[bool, Meta(description="Verify that certificate, which many clusters let the kubelet sign itself")] = True
    pod_resources: Annotated[
        str, Meta(description="Socket of the kubelet that tells which GPUs and RDMA devices a pod was given; empty = do not ask")
    ] = ""
