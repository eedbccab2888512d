#!/bin/sh
# The first program of the inner kernel. The machine's root file system is here for reading only;
# on top of it lies memory, so that everything can be written and nothing of it stays.
#
# The kernel's command line gives: PYTHON (of the venv), AGENT, CABLES (how many), CONTROL
# (address of the control device), OUT (a directory to write for real, or nothing).
set -e
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export HOME=/root LC_ALL=C.UTF-8

mount -t tmpfs tmpfs /run
mkdir /run/upper /run/work /run/root
mount -t overlay -o lowerdir=/,upperdir=/run/upper,workdir=/run/work overlay /run/root
cd /run/root
mount -t devtmpfs devtmpfs dev
mkdir -p old
pivot_root . old
cd /
umount -l /old
rmdir /old
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs -o mode=755 tmpfs /run
mkdir /dev/pts /dev/shm /run/lock
mount -t devpts -o ptmxmode=666 devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
ln -s /proc/self/fd /dev/fd
for link in stdin:0 stdout:1 stderr:2; do
    ln -s "/proc/self/fd/${link#*:}" "/dev/${link%:*}"
done
[ -z "$OUT" ] || mount -t hostfs -o "$OUT" none "$OUT"

ip link set lo up
sysctl -q -w net.ipv4.conf.all.promote_secondaries=1 net.ipv6.conf.default.accept_dad=0
# The agent's own network: what runs here sees no device but its cables.
ip netns add control
ip link set vec0 netns control
ip -n control address add "$CONTROL" dev vec0
ip -n control link set vec0 up
number=0
while [ "$number" -lt "$CABLES" ]; do
    ip link set "vec$((number + 1))" name "eth$number"
    number=$((number + 1))
done
unset CONTROL CABLES OUT
cd /
nsenter --net=/run/netns/control "$PYTHON" -IS "$AGENT" || true
echo "the agent has ended"
