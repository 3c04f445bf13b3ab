// SPDX-License-Identifier: GPL-2.0
/*
 * fakeib: an InfiniBand adapter without hardware, to test programs that read RDMA counters.
 *
 * It has no verbs, only what the RDMA core needs for sysfs and netlink: performance management counters (counters/),
 * hardware counters per port and per device (hw_counters/), optional counters, states, LIDs and a firmware version.
 * Values and failures come from parameters, most of them writable in /sys/module/fakeib/parameters while it runs; and
 * there it counts the calls the core makes of the driver, each of which is one or more firmware commands on hardware.
 */
#include <linux/module.h>
#include <rdma/ib_mad.h>
#include <rdma/ib_pma.h>
#include <rdma/ib_verbs.h>

#define OPTIONAL_COUNTERS 3
#define MAX_PORT_COUNTERS 512
#define MAX_DEVICE_COUNTERS 256
#define EXTRA_NAME_SIZE 24
#define PMA_OFFSET 40 /* of the attribute in the data of a MAD: IBA 16.1.2 */

static ulong base = 1000;
module_param(base, ulong, 0644);
MODULE_PARM_DESC(base, "hardware counter i of port p is base + 1000 * p + i; the others are multiples of base");
static uint state = IB_PORT_ACTIVE;
module_param(state, uint, 0644);
MODULE_PARM_DESC(state, "enum ib_port_state");
static uint phys = IB_PORT_PHYS_STATE_LINK_UP;
module_param(phys, uint, 0644);
MODULE_PARM_DESC(phys, "enum ib_port_phys_state");
static uint width = IB_WIDTH_4X;
module_param(width, uint, 0644);
MODULE_PARM_DESC(width, "enum ib_port_width");
static uint speed = IB_SPEED_NDR;
module_param(speed, uint, 0644);
MODULE_PARM_DESC(speed, "enum ib_port_speed");
static bool pma_fail;
module_param(pma_fail, bool, 0644);
MODULE_PARM_DESC(pma_fail, "counters/ read EINVAL, as on a function without the right to them");
static bool hw_fail;
module_param(hw_fail, bool, 0644);
MODULE_PARM_DESC(hw_fail, "hw_counters/ read EOPNOTSUPP");
static bool mlx5_like;
module_param(mlx5_like, bool, 0644);
MODULE_PARM_DESC(mlx5_like, "as mlx5_ib_get_hw_stats: asked for any counter but the first, it answers fewer than it has, so the core never caches");

static uint ports = 2;
module_param(ports, uint, 0444);
static bool roce;
module_param(roce, bool, 0444);
MODULE_PARM_DESC(roce, "the link layer is Ethernet");
static bool nopma;
module_param(nopma, bool, 0444);
MODULE_PARM_DESC(nopma, "no counters/ at all");
static uint ext = 1;
module_param(ext, uint, 0444);
MODULE_PARM_DESC(ext, "64-bit counters in counters/: 0 none, 1 all, 2 all but unicast and multicast");
static char *devname = "fakeib%d";
module_param(devname, charp, 0444);
static uint extra;
module_param(extra, uint, 0444);
MODULE_PARM_DESC(extra, "so many port counters called extra_counter_<i> instead of the default ones");
static char *names[MAX_PORT_COUNTERS];
static int name_count;
module_param_array(names, charp, &name_count, 0444);
MODULE_PARM_DESC(names, "port counters of these names instead of the default ones");
static char *devnames[MAX_DEVICE_COUNTERS];
static int devname_count;
module_param_array(devnames, charp, &devname_count, 0444);
MODULE_PARM_DESC(devnames, "device counters of these names instead of the default ones");

static ulong pma_reads;
module_param(pma_reads, ulong, 0444);
MODULE_PARM_DESC(pma_reads, "calls of process_mad so far");
static ulong hw_reads;
module_param(hw_reads, ulong, 0444);
MODULE_PARM_DESC(hw_reads, "calls of get_hw_stats so far");
static ulong port_queries;
module_param(port_queries, ulong, 0444);
MODULE_PARM_DESC(port_queries, "calls of query_port so far");

/* What an adapter with the mlx5 driver has; the optional ones, last, only netlink shows. */
static const struct rdma_stat_desc port_counters[] = {
	{ "rx_write_requests" }, { "rx_read_requests" }, { "rx_atomic_requests" }, { "out_of_buffer" },
	{ "out_of_sequence" }, { "duplicate_request" }, { "rnr_nak_retry_err" }, { "packet_seq_err" },
	{ "implied_nak_seq_err" }, { "local_ack_timeout_err" }, { "resp_local_length_error" },
	{ "resp_cqe_error" }, { "req_cqe_error" }, { "req_remote_invalid_request" },
	{ "req_remote_access_errors" }, { "resp_remote_access_errors" }, { "resp_cqe_flush_error" },
	{ "req_cqe_flush_error" }, { "roce_adp_retrans" }, { "roce_adp_retrans_to" },
	{ "roce_slow_restart" }, { "roce_slow_restart_cnps" }, { "roce_slow_restart_trans" },
	{ "rp_cnp_ignored" }, { "rp_cnp_handled" }, { "np_ecn_marked_roce_packets" }, { "np_cnp_sent" },
	{ "rx_icrc_encapsulated" },
	{ "cc_rx_ce_pkts", IB_STAT_FLAG_OPTIONAL }, { "cc_rx_cnp_pkts", IB_STAT_FLAG_OPTIONAL },
	{ "cc_tx_cnp_pkts", IB_STAT_FLAG_OPTIONAL },
};
static const struct rdma_stat_desc device_counters[] = { { "fatal_events" }, { "cmd_timeouts" } };

static struct rdma_stat_desc other_port_counters[MAX_PORT_COUNTERS];
static char extra_names[MAX_PORT_COUNTERS][EXTRA_NAME_SIZE];
static struct rdma_stat_desc other_device_counters[MAX_DEVICE_COUNTERS];

static struct rdma_hw_stats *alloc_named(struct rdma_stat_desc *counters, char **wanted, int count)
{
	int i;

	for (i = 0; i < count; i++)
		counters[i].name = wanted[i];
	return rdma_alloc_hw_stats_struct(counters, count, RDMA_HW_STATS_DEFAULT_LIFESPAN);
}

static struct rdma_hw_stats *alloc_extra(void)
{
	int i, count = min_t(uint, extra, MAX_PORT_COUNTERS);

	for (i = 0; i < count; i++) {
		snprintf(extra_names[i], EXTRA_NAME_SIZE, "extra_counter_%d", i);
		other_port_counters[i].name = extra_names[i];
	}
	return rdma_alloc_hw_stats_struct(other_port_counters, count, RDMA_HW_STATS_DEFAULT_LIFESPAN);
}

static struct rdma_hw_stats *alloc_port_stats(struct ib_device *device, u32 port)
{
	const int count = ARRAY_SIZE(port_counters);
	struct rdma_hw_stats *stats;

	if (name_count)
		return alloc_named(other_port_counters, names, name_count);
	if (extra)
		return alloc_extra();
	stats = rdma_alloc_hw_stats_struct(port_counters, count, RDMA_HW_STATS_DEFAULT_LIFESPAN);
	if (stats)
		bitmap_set(stats->is_disabled, count - OPTIONAL_COUNTERS, OPTIONAL_COUNTERS);
	return stats;
}

static struct rdma_hw_stats *alloc_device_stats(struct ib_device *device)
{
	if (devname_count)
		return alloc_named(other_device_counters, devnames, devname_count);
	return rdma_alloc_hw_stats_struct(device_counters, ARRAY_SIZE(device_counters), RDMA_HW_STATS_DEFAULT_LIFESPAN);
}

static int get_stats(struct ib_device *device, struct rdma_hw_stats *stats, u32 port, int index)
{
	int i;

	hw_reads++;
	if (hw_fail)
		return -EOPNOTSUPP;
	for (i = 0; i < stats->num_counters; i++)
		stats->value[i] = base + 1000 * port + i;
	if (mlx5_like && port && index > 0 && index < stats->num_counters)
		return stats->num_counters - OPTIONAL_COUNTERS;
	return stats->num_counters;
}

static int modify_stat(struct ib_device *device, u32 port, unsigned int index, bool enable)
{
	return 0;
}

/* The fields have 4, 8, 16 and 32 bits, and stay at their greatest value. */
static void port_counters_32(struct ib_pma_portcounters *counters)
{
	counters->symbol_error_counter = cpu_to_be16(min(base, 0xfffful));
	counters->link_error_recovery_counter = min(base, 0xfful);
	counters->link_downed_counter = 3;
	counters->port_rcv_errors = cpu_to_be16(min(base + 1, 0xfffful));
	counters->port_xmit_discards = cpu_to_be16(min(base + 2, 0xfffful));
	counters->link_overrun_errors = 0x5a; /* local link integrity 5, buffer overrun 10 */
	counters->port_xmit_data = cpu_to_be32(min(base * 1000, 0xfffffffful));
	counters->port_rcv_data = cpu_to_be32(min(base * 2000, 0xfffffffful));
	counters->port_xmit_packets = cpu_to_be32(min(base, 0xfffffffful));
	counters->port_rcv_packets = cpu_to_be32(min(base, 0xfffffffful));
	counters->port_xmit_wait = cpu_to_be32(min(base * 7, 0xfffffffful));
}

static void port_counters_64(struct ib_pma_portcounters_ext *counters)
{
	counters->port_xmit_data = cpu_to_be64(base * 1000000);
	counters->port_rcv_data = cpu_to_be64(base * 2000000);
	counters->port_xmit_packets = cpu_to_be64(base * 3);
	counters->port_rcv_packets = cpu_to_be64(base * 4);
	counters->port_unicast_xmit_packets = cpu_to_be64(base * 2);
	counters->port_unicast_rcv_packets = cpu_to_be64(base * 3);
	counters->port_multicast_xmit_packets = cpu_to_be64(base);
	counters->port_multicast_rcv_packets = cpu_to_be64(base);
}

static int process_mad(struct ib_device *device, int flags, u32 port, const struct ib_wc *completion,
		       const struct ib_grh *route, const struct ib_mad *in, struct ib_mad *out, size_t *out_size,
		       u16 *out_pkey_index)
{
	void *answer = out->data + PMA_OFFSET;

	pma_reads++;
	if (in->mad_hdr.mgmt_class != IB_MGMT_CLASS_PERF_MGMT || pma_fail)
		return IB_MAD_RESULT_FAILURE;
	switch (in->mad_hdr.attr_id) {
	case IB_PMA_CLASS_PORT_INFO:
		if (ext)
			((struct ib_class_port_info *)answer)->capability_mask =
				ext == 1 ? IB_PMA_CLASS_CAP_EXT_WIDTH : IB_PMA_CLASS_CAP_EXT_WIDTH_NOIETF;
		break;
	case IB_PMA_PORT_COUNTERS:
		port_counters_32(answer);
		break;
	case IB_PMA_PORT_COUNTERS_EXT:
		port_counters_64(answer);
		break;
	default:
		return IB_MAD_RESULT_FAILURE;
	}
	return IB_MAD_RESULT_SUCCESS | IB_MAD_RESULT_REPLY;
}

static int query_device(struct ib_device *device, struct ib_device_attr *attr, struct ib_udata *data)
{
	memset(attr, 0, sizeof(*attr));
	attr->fw_ver = 28;
	attr->vendor_id = 0x2c9;
	attr->vendor_part_id = 4129;
	attr->sys_image_guid = device->node_guid;
	attr->max_pkeys = 1;
	return 0;
}

static int query_port(struct ib_device *device, u32 port, struct ib_port_attr *attr)
{
	port_queries++;
	attr->state = state;
	attr->phys_state = phys;
	attr->active_width = width;
	attr->active_speed = speed;
	attr->max_mtu = attr->active_mtu = IB_MTU_4096;
	attr->gid_tbl_len = 1;
	attr->pkey_tbl_len = 1;
	attr->max_msg_sz = 1 << 30;
	attr->lid = 0x10 + port;
	attr->sm_lid = 1;
	attr->port_cap_flags = 0x2651e848;
	return 0;
}

static int query_gid(struct ib_device *device, u32 port, int index, union ib_gid *gid)
{
	gid->global.subnet_prefix = cpu_to_be64(0xfe80000000000000ULL);
	gid->global.interface_id = cpu_to_be64(be64_to_cpu(device->node_guid) + port);
	return 0;
}

static int query_pkey(struct ib_device *device, u32 port, u16 index, u16 *pkey)
{
	*pkey = 0xffff;
	return 0;
}

static int get_port_immutable(struct ib_device *device, u32 port, struct ib_port_immutable *immutable)
{
	immutable->pkey_tbl_len = 1;
	immutable->gid_tbl_len = 1;
	immutable->core_cap_flags = RDMA_CORE_CAP_PROT_IB;
	return 0;
}

static enum rdma_link_layer get_link_layer(struct ib_device *device, u32 port)
{
	return roce ? IB_LINK_LAYER_ETHERNET : IB_LINK_LAYER_INFINIBAND;
}

static void get_firmware(struct ib_device *device, char *text)
{
	snprintf(text, IB_FW_VERSION_NAME_MAX, "28.39.1002");
}

static struct ib_device_ops ops = {
	.owner = THIS_MODULE,
	.driver_id = RDMA_DRIVER_UNKNOWN,
	.uverbs_abi_ver = 1,
	.alloc_hw_port_stats = alloc_port_stats,
	.alloc_hw_device_stats = alloc_device_stats,
	.get_hw_stats = get_stats,
	.modify_hw_stat = modify_stat,
	.process_mad = process_mad,
	.query_device = query_device,
	.query_port = query_port,
	.query_gid = query_gid,
	.query_pkey = query_pkey,
	.get_port_immutable = get_port_immutable,
	.get_link_layer = get_link_layer,
	.get_dev_fw_str = get_firmware,
};

struct adapter {
	struct ib_device ib; /* must come first: ib_alloc_device */
};

static struct adapter *adapter;

static int __init fakeib_init(void)
{
	int error;

	adapter = ib_alloc_device(adapter, ib);
	if (!adapter)
		return -ENOMEM;
	adapter->ib.node_type = RDMA_NODE_IB_CA;
	adapter->ib.phys_port_cnt = ports;
	adapter->ib.num_comp_vectors = 1;
	adapter->ib.node_guid = cpu_to_be64(0x0002c90300fa4e00ULL);
	strscpy(adapter->ib.node_desc, "fakeib HCA-0", sizeof(adapter->ib.node_desc));
	if (nopma)
		ops.process_mad = NULL;
	ib_set_device_ops(&adapter->ib, &ops);
	error = ib_register_device(&adapter->ib, devname, NULL);
	if (error)
		ib_dealloc_device(&adapter->ib);
	return error;
}

static void __exit fakeib_exit(void)
{
	ib_unregister_device(&adapter->ib);
	ib_dealloc_device(&adapter->ib);
}

module_init(fakeib_init);
module_exit(fakeib_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("An InfiniBand adapter without hardware, to test programs that read RDMA counters");
