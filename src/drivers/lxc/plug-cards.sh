# Plugs a guest's cards and volumes: LXC's hook start-host, which runs before the guest's init, also when it reboots from inside.
# Arguments: the directory with the texts for ip and bridge (see cards.ts), then the guest's cgroups. LXC_PID is the
# process that becomes the init. What went wrong is left in DIR/error.
PATH=/usr/sbin:/usr/bin:/sbin:/bin
dir=$1
shift
exec 2> "$dir/error" 9< "/proc/$LXC_PID/ns/net" || exit 1
for card in "$dir"/*.outside; do
  [ -e "$card" ] || break
  port=${card##*/}
  port=${port%.outside}
  # The first line: #NETNS
  IFS='#' read -r _ netns < "$card"
  # The port of the guest's last life, which the kernel takes away in its own time, may be in the way.
  nsenter "--net=$netns" ip -batch "$card" 2> /dev/null || {
    nsenter "--net=$netns" ip link del dev "$port" 2> /dev/null
    nsenter "--net=$netns" ip -batch "$card" || exit 1
  }
  nsenter "--net=$netns" bridge -batch "$dir/$port.forwarding" || exit 1
  nsenter --net=/proc/self/fd/9 ip -batch "$dir/$port.inside" || exit 1
  [ -s "$dir/$port.inside6" ] || continue
  nsenter --net=/proc/self/fd/9 ip -6 -batch "$dir/$port.inside6" || exit 1
done
[ ! -s "$dir/../volumes" ] || perl "${0%/*}/volume-mounts" plug-all "$dir/../volumes" || exit 1
# The limits in the guest's own groups, which LXC has made as large as they were at the start.
while [ $# -gt 0 ] && [ "${1#/}" != "$1" ]; do
  for file in memory.limit_in_bytes cpu.cfs_period_us cpu.cfs_quota_us pids.max memory.max cpu.max; do
    [ -e "$1/$file" ] && [ -e "$1/payload/$file" ] || continue
    read -r limit < "$1/$file" && echo "$limit" > "$1/payload/$file"
  done
  shift
done
exit 0
