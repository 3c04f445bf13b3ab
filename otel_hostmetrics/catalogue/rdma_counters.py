"""The counters of RDMA drivers, by the kernel's name: which metric each is, its unit and its width.

Names: drivers/infiniband/core/sysfs.c (counters/), and the rdma_stat_desc tables of drivers/infiniband/{hw,sw}/* up to 6.18:
mlx5/counters.c, mlx4/main.c, efa/efa_verbs.c, bnxt_re/hw_counters.c, irdma/verbs.c, erdma/erdma_verbs.c, mana/counters.c,
rxe/rxe_hw_counters.c. A name that is not here is a counter of rdma.stat; hfi1 and cxgb4 have hundreds of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from otel_hostmetrics.catalogue import hardware, rdma
from otel_hostmetrics.catalogue.model import Metric

_DIRECTION = {"tx": "transmit", "rx": "receive"}


class Counter(NamedTuple):
    """What the kernel calls a counter, as a point. *scale* gives the metric's unit."""

    metric: Metric
    attributes: Mapping[str, str]  # beside device and port
    scale: float = 1


def lookup(name: str) -> Counter:
    """The typed form of a counter; an unknown one is rdma.stat under its own name."""
    found = _KNOWN.get(name.removeprefix(_OF_VPORT))
    return found or Counter(rdma.OTHER, {rdma.STAT: name})


def wraps_at(directory: str, name: str) -> int:
    """The modulus of a counter that wraps below 64 bits; 0 if it does not."""
    return 2**32 if directory == "hw_counters" and name.removeprefix(_OF_VPORT) in _WRAPPING else 0


def saturates_at(directory: str, name: str) -> int:
    """The value at which a counter stops; 0 if it does not stop below 64 bits."""
    return _SATURATING.get(name, 0) if directory == "counters" else 0


# mlx5 in switchdev mode shows the counters of each virtual port under this prefix, and the bare names at the device.
_OF_VPORT = "vport_"


def _each(text: str) -> Iterator[tuple[str, str]]:
    """``name=value name`` -> (name, value); a name without a value stands for itself."""
    for word in text.split():
        name, _, value = word.partition("=")
        yield name, value or name


def _by(metric: Metric, key: str, text: str, **more: str) -> dict[str, Counter]:
    """Counters told apart by the attribute *key*."""
    return {name: Counter(metric, {**_dotted(more), key: value}) for name, value in _each(text)}


def _directed(metric: Metric, key: str, text: str) -> dict[str, Counter]:
    """Counters told apart by direction and *key*: ``name=tx:value``."""
    found = {}
    for name, value in _each(text):
        way, _, rest = value.partition(":")
        found[name] = Counter(metric, {hardware.DIRECTION: _DIRECTION[way], **({key: rest} if rest else {})})
    return found


def _dotted(more: Mapping[str, str]) -> dict[str, str]:
    """Attributes given as keyword arguments: ``rdma__qp__side`` -> ``rdma.qp.side``."""
    return {key.replace("__", "."): value for key, value in more.items()}


def _errors(text: str, way: str = "") -> dict[str, Counter]:
    direction = {hardware.DIRECTION: _DIRECTION[way]} if way else {}
    return {name: Counter(hardware.ERRORS, {hardware.ERROR_TYPE: name, **direction}) for name in text.split()}


def _discards(text: str, way: str) -> dict[str, Counter]:
    return {name: Counter(rdma.DISCARDS, {rdma.STAT: name, hardware.DIRECTION: _DIRECTION[way]}) for name in text.split()}


# PortCounters:PortXmitData counts "the total number of data octets, divided by 4" (InfiniBand 1.7, 16.1.3.5), whatever the width.
_WORDS = {
    "port_xmit_data": Counter(hardware.NETWORK_IO, {hardware.DIRECTION: "transmit"}, 4),
    "port_rcv_data": Counter(hardware.NETWORK_IO, {hardware.DIRECTION: "receive"}, 4),
}
_TRAFFIC = {
    **_WORDS,
    **_directed(hardware.NETWORK_IO, "network.type", """
        tx_bytes=tx rx_bytes=rx tx_bytes_cnt=tx rx_bytes_cnt=rx
        ip4OutOctets=tx:ipv4 ip4InOctets=rx:ipv4 ip6OutOctets=tx:ipv6 ip6InOctets=rx:ipv6"""),
    **_directed(hardware.NETWORK_PACKETS, "network.type", """
        port_xmit_packets=tx port_rcv_packets=rx tx_pkts=tx rx_pkts=rx tx_packets=tx rx_packets=rx tx_packets_cnt=tx rx_packets_cnt=rx
        sent_pkts=tx rcvd_pkts=rx ip4OutPkts=tx:ipv4 ip4InPkts=rx:ipv4 ip6OutPkts=tx:ipv6 ip6InPkts=rx:ipv6"""),
    **_directed(rdma.PACKETS, "rdma.packet.cast", """
        unicast_xmit_packets=tx:unicast unicast_rcv_packets=rx:unicast multicast_xmit_packets=tx:multicast
        multicast_rcv_packets=rx:multicast"""),
    **{name: Counter(rdma.PACKETS, {hardware.DIRECTION: way, "rdma.packet.cast": "multicast", "network.type": f"ipv{name[2]}"})
       for way, names in (("transmit", "ip4OutMcastPkts ip6OutMcastPkts"), ("receive", "ip4InMcastPkts ip6InMcastPkts"))
       for name in names.split()},
    "port_xmit_wait": Counter(rdma.WAIT, {}),
}  # fmt: skip
_OPERATIONS = {
    **_directed(rdma.OPERATIONS, "rdma.operation.type", """
        rx_write_requests=rx:write rx_read_requests=rx:read rx_atomic_requests=rx:atomic rx_send_requests=rx:send
        rx_dct_connect=rx:dct_connect send_wrs=tx:send recv_wrs=rx:send rdma_read_wrs=tx:read rdma_write_wrs=tx:write
        tx_reqs_cnt=tx:all tx_atomic_req=tx:atomic tx_read_req=tx:read tx_read_resp=tx:read_response tx_write_req=tx:write
        tx_send_req=tx:send rx_atomic_req=rx:atomic rx_read_req=rx:read rx_read_resp=rx:read_response rx_write_req=rx:write
        rx_send_req=rx:send iwOutRdmaReads=tx:read iwOutRdmaSends=tx:send iwOutRdmaWrites=tx:write iwInRdmaReads=rx:read
        iwInRdmaSends=rx:send iwInRdmaWrites=rx:write OutRdmaReads=tx:read OutRdmaSends=tx:send OutRdmaWrites=tx:write
        InRdmaReads=rx:read InRdmaSends=rx:send InRdmaWrites=rx:write iwRdmaBnd=tx:bind iwRdmaInv=tx:invalidate RdmaBnd=tx:bind
        RdmaInv=tx:invalidate rdma_sends=tx:send rdma_recvs=rx:send"""),
    **_directed(rdma.OPERATION_IO, "rdma.operation.type", """
        send_bytes=tx:send recv_bytes=rx:send rdma_read_bytes=rx:read rdma_read_resp_bytes=tx:read rdma_write_bytes=tx:write
        rdma_write_recv_bytes=rx:write"""),
    **_by(rdma.COMMANDS, "rdma.command.outcome", """
        submitted_cmds=submitted completed_cmds=completed cmds_err=error no_completion_cmds=no_completion"""),
}  # fmt: skip
_CONGESTION = _by(rdma.CONGESTION, "rdma.congestion.event", """
    np_ecn_marked_roce_packets=ecn_marked rx_ecn_marked_pkts=ecn_marked RxECNMrkd=ecn_marked received_ecns=ecn_marked
    cc_rx_ce_pkts=ecn_marked_optional np_cnp_sent=cnp_sent tx_cnp_pkts=cnp_sent cnpSent=cnp_sent sent_cnps=cnp_sent
    cc_tx_cnp_pkts=cnp_sent_optional rp_cnp_handled=cnp_handled cnpHandled=cnp_handled rp_cnp_ignored=cnp_ignored
    cnpIgnored=cnp_ignored rx_cnp_pkts=cnp_received received_cnps=cnp_received received_cnp_count=cnp_received
    cc_rx_cnp_pkts=cnp_received_optional roce_slow_restart=slow_restart roce_slow_restart_cnps=slow_restart_cnp
    roce_slow_restart_trans=slow_restart_transition pacing_reschedule=pacing_rescheduled pacing_complete=pacing_completed
    pacing_alerts=pacing_alert rate_inc_events=rate_increase qp_congested_events=qp_congested
    qp_recovered_events=qp_recovered""")  # fmt: skip
_TRANSPORT = {
    **_by(rdma.TRANSPORT, "rdma.transport.event", """
        out_of_sequence oos_drop_count=out_of_sequence out_of_seq_request=out_of_sequence responder_oos=out_of_sequence
        rq_num_oos=out_of_sequence duplicate_request dup_req=duplicate_request rq_num_dup=duplicate_request
        responder_dup_request=duplicate_request dup_rx_requests packet_seq_err=nak_sequence_received
        seq_err_naks_rcvd=nak_sequence_received rcvd_seq_err=nak_sequence_received requester_oos_nak=nak_sequence_received
        sq_num_oos=nak_sequence_received implied_nak_seq_err=nak_implied requester_implicit_nak=nak_implied
        rnr_nak_retry_err=rnr_received rnr_naks_rcvd=rnr_received rcvd_rnr_err=rnr_received requester_rnr_nak=rnr_received
        sq_num_rnr=rnr_received rq_num_rnr=rnr_sent send_rnr_err=rnr_sent responder_rnr_nak=rnr_sent local_ack_timeout_err=ack_timeout
        sq_num_to=ack_timeout requester_timeout=ack_timeout retrans_timeout_events=ack_timeout
        roce_adp_retrans=adaptive_retransmission roce_adp_retrans_to=adaptive_retransmission_timeout to_retransmits=retransmission
        retrans_pkts=retransmission tcpRetransSegs=retransmission completer_retry_err=retransmission
        max_retry_exceeded=retries_exceeded req_transport_retries_exceeded=retries_exceeded retry_exceeded_err=retries_exceeded
        requester_retries_exceeded=retries_exceeded sq_num_tree=retries_exceeded req_rnr_retries_exceeded=rnr_retries_exceeded
        retry_rnr_exceeded_err=rnr_retries_exceeded sq_num_rree=rnr_retries_exceeded
        requester_rnr_nak_retries_exceeded=rnr_retries_exceeded missing_resp=response_missing ack_deferred=ack_deferred
        impaired_remote_conn_events=remote_impaired unresponsive_remote_events=remote_unresponsive"""),
    "retrans_bytes": Counter(rdma.RETRANSMITTED, {}),
}  # fmt: skip
_COMPLETION_ERRORS = {
    **_by(rdma.COMPLETION_ERRORS, hardware.ERROR_TYPE, """
        req_cqe_error req_cqe_flush_error req_remote_invalid_request req_remote_access_errors unrecoverable_err bad_resp_err
        local_qp_op_err local_protection_err mem_mgmt_op_err remote_invalid_req_err remote_access_err remote_op_err rdma_read_wr_err
        rdma_write_wr_err send_err sq_num_lle sq_num_lqpoe sq_num_lpe sq_num_wrfe sq_num_mwbe sq_num_bre sq_num_rire sq_num_rae
        sq_num_roe requester_readresp_psn_mismatch requestor_local_prot_error""", rdma__qp__side="requester"),
    **_by(rdma.COMPLETION_ERRORS, hardware.ERROR_TYPE, """
        resp_local_length_error resp_cqe_error resp_cqe_flush_error resp_remote_access_errors rq_num_lle rq_num_lqpoe rq_num_lpe
        rq_num_wrfe rq_num_rire rq_num_rae res_exceed_max res_length_mismatch res_exceeds_wqe res_opcode_err res_rx_invalid_rkey
        res_rx_domain_err res_rx_no_perm res_rx_range_err res_tx_invalid_rkey res_tx_domain_err res_tx_no_perm res_tx_range_err
        res_irrq_oflow res_unsup_opcode res_unaligned_atomic res_rem_inv_err res_mem_err res_srq_err res_cmp_err res_invalid_dup_rkey
        res_wqe_format_err res_cq_load_err res_srq_load_err responder_local_len_error responder_rem_access_error
        responder_local_qp_error responder_malformed_wqe""", rdma__qp__side="responder"),
    **_by(rdma.COMPLETION_ERRORS, hardware.ERROR_TYPE, "num_cqovf nak_inv_req nak_access_error nak_opp_error nak_inv_read"),
}  # fmt: skip
_ERRORS = {
    **_errors("""port_rcv_errors port_rcv_remote_physical_errors port_rcv_switch_relay_errors port_rcv_constraint_errors
        excessive_buffer_overrun_errors local_link_integrity_errors symbol_error rx_icrc_encapsulated rx_roce_errors res_rx_pci_err
        rxVlanErrors tcpInOptErrors tcpInProtoErrors ip4InTruncatedPkts ip6InTruncatedPkts""", "rx"),
    **_errors("port_xmit_constraint_errors tx_roce_errors res_tx_pci_err", "tx"),
    **_errors("""recoverable_errors alloc_pd_err create_qp_err create_cq_err reg_mr_err alloc_ucontext_err create_ah_err mmap_err
        general_hw_error total_fatal_error"""),
}  # fmt: skip
_DISCARDS = {
    **_discards("""port_xmit_discards tx_roce_discards tx_disable_drop_cnt tx_bps_limit_drop_cnt tx_pps_limit_drop_cnt ip4OutNoRoutes
        ip6OutNoRoutes""", "tx"),
    **_discards("""VL15_dropped out_of_buffer rx_out_of_buffer rx_drops rx_roce_discards rx_disable_drop_cnt rx_bps_limit_drop_cnt
        rx_pps_limit_drop_cnt ip4InDiscards ip6InDiscards rq_num_udsdprd""", "rx"),
}  # fmt: skip
_LINK = _by(rdma.LINK_EVENTS, "rdma.link.event", "link_downed=downed link_error_recovery=error_recovery")
# Levels among the counters: resources in use (bnxt_re, hfi1), their highest number, registers, congestion states.
_LEVELS = _by(rdma.DRIVER_LEVEL, rdma.STAT, """
    active_pds active_ahs active_qps active_rc_qps active_ud_qps active_srqs active_cqs active_mrs active_mws
    watermark_pds watermark_ahs watermark_qps watermark_rc_qps watermark_ud_qps watermark_srqs watermark_cqs watermark_mrs watermark_mws
    db_fifo_register DRIVER_CtxtsOpen num_qps_congested num_qps_recovered current_rate""")  # fmt: skip

_KNOWN: dict[str, Counter] = {
    **_TRAFFIC, **_OPERATIONS, **_CONGESTION, **_TRANSPORT, **_COMPLETION_ERRORS, **_ERRORS, **_DISCARDS, **_LINK, **_LEVELS,
    "lifespan": Counter(rdma.LIFESPAN, {}, 0.001),
}  # fmt: skip
KNOWN: Mapping[str, Counter] = _KNOWN

# Q counters of mlx5 and diagnostic counters of mlx4 are 32 bits wide and wrap. A driver that has the same name in 64 bits
# (soft-RoCE) does not come down from above 2^31 other than by starting anew, so the name is enough.
_WRAPPING = frozenset(name for name, _ in _each("""
    rx_write_requests rx_read_requests rx_atomic_requests rx_dct_connect out_of_buffer out_of_sequence duplicate_request
    rnr_nak_retry_err packet_seq_err implied_nak_seq_err local_ack_timeout_err resp_local_length_error resp_cqe_error req_cqe_error
    req_remote_invalid_request req_remote_access_errors resp_remote_access_errors resp_cqe_flush_error req_cqe_flush_error
    req_transport_retries_exceeded req_rnr_retries_exceeded roce_adp_retrans roce_adp_retrans_to roce_slow_restart
    roce_slow_restart_cnps roce_slow_restart_trans rq_num_lle sq_num_lle rq_num_lqpoe sq_num_lqpoe rq_num_lpe sq_num_lpe rq_num_wrfe
    sq_num_wrfe sq_num_mwbe sq_num_bre sq_num_rire rq_num_rire sq_num_rae rq_num_rae sq_num_roe sq_num_tree sq_num_rree rq_num_rnr
    sq_num_rnr rq_num_oos sq_num_oos rq_num_dup sq_num_to num_cqovf rq_num_udsdprd"""))  # fmt: skip

# counters/ come from PortCounters, whose fields stop at their largest value. Data and packets are 64 bits wide with
# PortCountersExtended and 32 without; that a 64-bit one stands at exactly 2^32-1 when it is read can be left aside.
_SATURATING = {
    **dict.fromkeys(("local_link_integrity_errors", "excessive_buffer_overrun_errors"), 2**4 - 1),
    **dict.fromkeys(("link_error_recovery", "link_downed", "port_xmit_constraint_errors", "port_rcv_constraint_errors"), 2**8 - 1),
    **dict.fromkeys((
        "symbol_error", "port_rcv_errors", "port_rcv_remote_physical_errors", "port_rcv_switch_relay_errors", "port_xmit_discards",
        "VL15_dropped"), 2**16 - 1),
    **dict.fromkeys(("port_xmit_wait", "port_xmit_data", "port_rcv_data", "port_xmit_packets", "port_rcv_packets"), 2**32 - 1),
}  # fmt: skip
