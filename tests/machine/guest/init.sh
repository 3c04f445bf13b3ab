#!/bin/busybox sh
# The first process of the machine. The host's / becomes its root, read-only under a layer in memory; the shared folder is
# /mnt/out. Runs /mnt/out/job.sh, leaves its output and status there, and switches the machine off.
busybox=/bin/busybox
$busybox --install -s /bin
export PATH=/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin HOME=/root LC_ALL=C.UTF-8
mount -t devtmpfs dev /dev
mount -t proc proc /proc
for module in $(cat /order); do insmod "/modules/$module" || echo "machine: no $module"; done

share() { mount -t 9p -o "trans=virtio,version=9p2000.L,msize=512000,$3" "$1" "$2" || echo "machine: no share $1"; }
mkdir -p /host /memory /root
share host /host ro,cache=loose # nobody changes it meanwhile: caching is worth a third of the whole time
mount -t tmpfs memory /memory
mkdir /memory/upper /memory/work
mount -t overlay -o lowerdir=/host,upperdir=/memory/upper,workdir=/memory/work root /root
for each in dev proc; do mount --move "/$each" "/root/$each"; done
mount -t sysfs sysfs /root/sys
mount -t tmpfs run /root/run
mkdir -p /root/mnt/out /root/dev/shm /root/dev/pts /root/lib/modules /root/run/lock
mount -t tmpfs shm /root/dev/shm
mount -t devpts devpts /root/dev/pts
mount -t debugfs debugfs /root/sys/kernel/debug
mount -t bpf bpf /root/sys/fs/bpf
mount -t cgroup2 cgroup2 /root/sys/fs/cgroup
share out /root/mnt/out cache=none
mount --bind "/root$(cat /kernel)/lib/modules" /root/lib/modules # modprobe, also the kernel's own calls of it
ip link set lo up

# $$ stays 1: when the job is over, so is the machine
exec switch_root /root /bin/sh -c '
  sh /mnt/out/job.sh >/mnt/out/job.log 2>&1
  echo $? >/mnt/out/status
  dmesg >/mnt/out/dmesg
  sync
  echo o >/proc/sysrq-trigger
  sleep 60'
