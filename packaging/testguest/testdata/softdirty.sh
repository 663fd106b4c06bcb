#!/bin/busybox sh
# The first process when the guest runs the tests of snapshot/memory.
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/shm /tmp
mount -t tmpfs shm /dev/shm
while read -r module; do insmod "/modules/$module"; done </modules/order
mkswap /dev/vda >/dev/null
uname -r
VMCTL_TEST_SOFT_DIRTY=must VMCTL_TEST_SWAP=/dev/vda /bin/memory.test -test.v -test.timeout 4m -test.run 'SelfTest|SoftDirty'
echo "result $?"
poweroff -f
