#!/usr/bin/env bash
# A real systemd in private namespaces, on an overlay of this machine: nothing of the machine is changed. Ends with its standard input.
#
#   scratch.sh SCRATCH PACKAGES FOLDER:PLACE…
#
# SCRATCH is an empty folder. PACKAGES is where the packages of Debian that the test needs are kept between runs. Each FOLDER
# is seen inside at its PLACE. Says "systemd PID" once it has started, or "skip REASON" where this machine cannot.
set -euo pipefail
scratch=$1 packages=$2
shift 2

skip() {
  echo "skip $*"
  exit 0
}

case ${NEVERLAPSE_STAGE:-outside} in
  outside)
    [ "$(id -u)" = 0 ] || skip "only root can"
    [ -x /lib/systemd/systemd ] && command -v apt-get >/dev/null || skip "this is no Debian with systemd"
    unshare --mount --pid --fork --uts --ipc --net --cgroup -- true 2>/dev/null || skip "there are no private namespaces"
    export NEVERLAPSE_STAGE=prepare
    exec unshare --mount --propagation private -- bash "$0" "$scratch" "$packages" "$@"
    ;;

  prepare)
    mount -t tmpfs -o size=3g,mode=755 tmpfs "$scratch"
    mkdir "$scratch/upper" "$scratch/work" "$scratch/root"
    mount -t overlay overlay -o "lowerdir=/,upperdir=$scratch/upper,workdir=$scratch/work" "$scratch/root" ||
      skip "there is no overlay file system"
    root=$scratch/root

    # The servers of docs/delivery.md, not started.
    mkdir -p "$packages/partial"
    mount --bind /proc "$root/proc"
    mount --bind /dev "$root/dev"
    printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
    chmod 755 "$root/usr/sbin/policy-rc.d"
    mkdir -p "$root/var/cache/apt/archives"
    mount --bind "$packages" "$root/var/cache/apt/archives"
    rm -f "$root/etc/apt/apt.conf.d/docker-clean"
    packages() { DEBIAN_FRONTEND=noninteractive chroot "$root" apt-get --quiet --yes -o APT::Keep-Downloaded-Packages=true "$@"; }
    servers() { packages install --no-install-recommends nginx-light haproxy apache2 postfix dovecot-imapd tomcat10 openssl; }
    { servers || { packages update && servers; }; } >"$scratch/packages.log" 2>&1 ||
      skip "the servers cannot be installed: $(tail -n 1 "$scratch/packages.log")"
    umount "$root/var/cache/apt/archives" "$root/dev" "$root/proc"
    rm "$root/usr/sbin/policy-rc.d"

    # Nothing starts that is not started by the test, and nothing that manages real devices.
    rm -rf "$root"/etc/systemd/system/*.wants/* "$root/etc/fstab"
    for unit in systemd-udevd.service systemd-timesyncd.service systemd-logind.service systemd-networkd.service \
      systemd-modules-load.service systemd-sysctl.service systemd-remount-fs.service dev-hugepages.mount dev-mqueue.mount; do
      ln -sf /dev/null "$root/etc/systemd/system/$unit"
    done
    export NEVERLAPSE_STAGE=boot
    # A control group for systemd, which makes others in it. They are removed as soon as everything in them has ended.
    for groups in /sys/fs/cgroup/unified /sys/fs/cgroup; do
      if [ -e "$groups/cgroup.procs" ]; then break; fi
    done
    group=$groups/neverlapse-test-$$ outer=
    leave() {
      if [ -n "$outer" ]; then
        kill -KILL "$outer"
        wait "$outer" 2>/dev/null
      fi || true
      echo $$ >"$groups/cgroup.procs"
      for _ in {1..100}; do
        find "$group" -depth -type d -exec rmdir {} + 2>/dev/null && break
        sleep 0.1
      done
    }
    mkdir "$group" || skip "there is no control group to be had"
    trap leave EXIT
    echo $$ >"$group/cgroup.procs"
    unshare --mount --propagation private --pid --fork --kill-child --uts --ipc --net --cgroup -- \
      bash "$0" "$scratch" "$packages" "$@" <&- >"$scratch/boot.log" 2>&1 &
    outer=$!
    until pid=$(cat "/proc/$outer/task/$outer/children") && grep -qs systemd "/proc/${pid% }/comm"; do
      [ -d "/proc/$outer" ] || skip "systemd does not start: $(tail -n 1 "$scratch/boot.log")"
      sleep 0.1
    done
    echo "systemd ${pid% }"
    # Until the test closes it. Then systemd ends with its parent.
    cat >/dev/null
    ;;

  boot)
    root=$scratch/root
    mount -t proc proc "$root/proc"
    mount -t sysfs sysfs "$root/sys"
    mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
    mount -t tmpfs tmpfs "$root/dev" -o mode=755
    for device in null zero full random urandom tty; do
      touch "$root/dev/$device"
      mount --bind "/dev/$device" "$root/dev/$device"
    done
    mkdir "$root/dev/pts" "$root/dev/shm"
    mount -t devpts devpts "$root/dev/pts" -o newinstance,ptmxmode=0666
    ln -s pts/ptmx "$root/dev/ptmx"
    mount -t tmpfs tmpfs "$root/dev/shm"
    ln -s /proc/self/fd "$root/dev/fd"
    for shared in "$@"; do
      mkdir -p "$root${shared##*:}"
      mount --bind "${shared%:*}" "$root${shared##*:}"
    done
    mount -t tmpfs tmpfs "$root/run" -o mode=755
    hostname web-test
    ip link set lo up 2>/dev/null || true
    echo 0123456789abcdef0123456789abcdef >"$root/etc/machine-id"
    mkdir -p "$root/old"
    cd "$root"
    pivot_root . old
    umount -l /old
    exec env -i container=other PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
      /lib/systemd/systemd --system --log-target=journal --show-status=no
    ;;
esac
