import { mkdirSync, writeFileSync } from "node:fs";
import { run } from "../../src/host/run.ts";
import { Background } from "./background.ts";
import type { Peer, Workload } from "./peer.ts";

const macAddress = "52:54:00:be:0c:01";

/**
 * `virsh create` of a transient domain with the same kernel, initrd, command line and accelerator, over a qcow2 overlay
 * that is made anew before each round (not timed), on a libvirt network with a reserved address.
 */
export function libvirtPeer(directory: string, workload: Workload, baseDisk: string, kvm: boolean): Peer {
  const virsh = (...args: string[]) =>
    run("virsh", ["-q", "-c", "qemu:///system", ...args], { timeoutMs: 180_000 });
  const daemons: Background[] = [];
  const overlay = `${directory}/overlay.qcow2`;
  const freshOverlay = () =>
    run("qemu-img", ["create", "-q", "-f", "qcow2", "-b", baseDisk, "-F", "qcow2", overlay]);
  return {
    name: "virsh create",
    async prepare() {
      mkdirSync(directory, { recursive: true });
      daemons.push(new Background("/usr/sbin/virtlogd", [], `${directory}/virtlogd.log`));
      const libvirtd = kvm
        ? new Background("/usr/sbin/libvirtd", [], `${directory}/libvirtd.log`)
        : withoutKvm(directory);
      daemons.unshift(libvirtd);
      await libvirtd.ready(() => virsh("version"), 120_000);
      writeFileSync(`${directory}/network.xml`, networkXml);
      await virsh("net-create", `${directory}/network.xml`);
      writeFileSync("/proc/sys/net/ipv4/neigh/benchvirt/retrans_time_ms", "50");
      writeFileSync(`${directory}/domain.xml`, domainXml(workload, overlay, kvm));
      await freshOverlay();
    },
    async start() {
      await virsh("create", `${directory}/domain.xml`);
      return { address: "10.214.4.10" };
    },
    async stop() {
      await virsh("destroy", "bench");
      await freshOverlay();
    },
    async dispose() {
      await virsh("destroy", "bench").catch(() => {});
      await virsh("net-destroy", "bench").catch(() => {});
      for (const daemon of daemons) await daemon.stop();
    },
  };
}

/**
 * libvirtd that does not see /dev/kvm. Where the device opens for root but not for libvirt's own user, or does not work,
 * libvirt's cache of QEMU's capabilities never becomes valid, and every `virsh create` would pay for probing QEMU anew.
 */
function withoutKvm(directory: string): Background {
  const dev = `${directory}/dev`;
  mkdirSync(dev, { recursive: true });
  const script = `mount -t tmpfs -o mode=755 tmpfs "$1" && mkdir "$1/pts" "$1/shm" "$1/net" &&
    for name in null zero full random urandom tty ptmx net/tun; do cp -a "/dev/$name" "$1/$name" || exit; done &&
    mount --bind /dev/pts "$1/pts" && mount --bind /dev/shm "$1/shm" && umount -R -l /dev && mount --move "$1" /dev && exec /usr/sbin/libvirtd`;
  return new Background("unshare", ["--mount", "sh", "-c", script, "sh", dev], `${directory}/libvirtd.log`);
}

const networkXml = `<network>
  <name>bench</name>
  <bridge name='benchvirt' stp='off' delay='0'/>
  <forward mode='open'/>
  <ip address='10.214.4.1' netmask='255.255.255.0'>
    <dhcp><host mac='${macAddress}' ip='10.214.4.10'/></dhcp>
  </ip>
</network>
`;

function domainXml(workload: Workload, disk: string, kvm: boolean): string {
  return `<domain type='${kvm ? "kvm" : "qemu"}'>
  <name>bench</name>
  <memory unit='MiB'>${workload.memoryMib}</memory>
  <vcpu>${workload.cpus}</vcpu>
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
    <kernel>${workload.kernel}</kernel>
    <initrd>${workload.initrd}</initrd>
    <cmdline>${workload.commandLine}</cmdline>
  </os>
  <features><acpi/></features>
  <cpu mode='${kvm ? "host-passthrough" : "maximum"}'/>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2'/>
      <source file='${disk}'/>
      <target dev='vda' bus='virtio'/>
    </disk>
    <interface type='network'>
      <mac address='${macAddress}'/>
      <source network='bench'/>
      <model type='virtio'/>
    </interface>
    <serial type='pty'/>
    <console type='pty'/>
    <rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>
    <memballoon model='none'/>
  </devices>
</domain>
`;
}
