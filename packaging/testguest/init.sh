#!/bin/busybox sh
# The first process of the test guest: modules, network, disk, workload.
/bin/busybox mount -t proc proc /proc
/bin/busybox ln -s busybox /bin/sh
# With /proc Debian's busybox finds its own programs without names of theirs.
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
while read -r module; do insmod "/modules/$module" || echo "init: $module does not load"; done </modules/order

argument() { sed -n "s/.*\bguest\.$1=\([^ ]*\).*/\1/p" /proc/cmdline; }
ip link set lo up
if [ -e /sys/class/net/eth0 ]; then
  ip link set eth0 up
  [ -z "$(argument ip)" ] || ip addr add "$(argument ip)" dev eth0
  [ -z "$(argument gw)" ] || ip route add default via "$(argument gw)"
fi
[ ! -e /dev/vda ] || mount -t ext4 /dev/vda /data || echo "init: the disk does not mount"

if [ "$(argument agent)" = 1 ]; then
  ln -s /bin/busybox /sbin/hwclock # the agent does not set the clock without it
  for port in /sys/class/virtio-ports/*; do
    [ "$(cat "$port/name")" != org.qemu.guest_agent.0 ] || /usr/sbin/qemu-ga -d -m virtio-serial -p "/dev/${port##*/}" -t /run -f /run/qga.pid
  done
fi

echo 1 >/proc/sys/kernel/sysrq
echo "init: starting the workload"
/bin/workload
echo "init: the workload ended, which is a bug: panic"
echo c >/proc/sysrq-trigger
sleep 1000
