#!/bin/busybox sh
# The first process of the test guest: modules, network, disk, workload.
/bin/busybox mount -t proc proc /proc
/bin/busybox ln -s busybox /bin/sh
# With /proc Debian's busybox finds its own programs without names of theirs.
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev

# In the shell alone: under emulation each further process costs 20 ms.
read -r line </proc/cmdline
for word in $line; do
  case $word in
  guest.ip=*) ip=${word#*=} ;;
  guest.gw=*) gw=${word#*=} ;;
  guest.agent=*) agent=${word#*=} ;;
  guest.watchdog=*) watchdog=${word#*=} ;;
  esac
done
while read -r module; do
  case $module in
  *virtio_console*) [ "$agent" = 1 ] || continue ;;
  *watchdog* | *softdog*) [ "$watchdog" = 1 ] || continue ;;
  esac
  insmod "/modules/$module" || echo "init: $module does not load"
done </modules/order

ip link set lo up
if [ -e /sys/class/net/eth0 ]; then
  ip link set eth0 up
  [ -z "$ip" ] || ip addr add "$ip" dev eth0
  [ -z "$gw" ] || ip route add default via "$gw"
fi
[ ! -e /dev/vda ] || mount -t ext4 /dev/vda /data || echo "init: the disk does not mount"

if [ "$agent" = 1 ]; then
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
