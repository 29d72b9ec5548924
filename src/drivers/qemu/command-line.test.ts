import { describe, expect, it } from "vitest";
import type { Uid } from "../../core/ids.ts";
import type { GuestNic, GuestSpec } from "../driver.ts";
import {
  type Accelerator,
  type Descriptors,
  execChardevs,
  hotCard,
  hotMemoryMib,
  kernelCommandLine,
  machineUuid,
  maxCpus,
  qemuArguments,
} from "./command-line.ts";
import type { QemuConfig } from "./qemu-config.ts";

const kvm: Accelerator = { type: "kvm" };
const tcg: Accelerator = { type: "tcg", tscKhz: 2_596_096 };

const nic: GuestNic = {
  name: "eth0",
  macAddress: "52:54:00:12:34:56",
  ipAddress: "10.80.1.5",
  prefixLength: 24,
  gateway: "10.80.1.1",
  mtu: 1450,
  netns: "/run/netns/strata-abc",
  bridge: "br0",
  port: "p0123456789",
};

function guest(overrides: Partial<GuestSpec<QemuConfig>> = {}): GuestSpec<QemuConfig> {
  return {
    uid: "0123456789abcdef" as Uid,
    title: "default/web-1",
    hostname: "web-1",
    type: "vm",
    cpus: 2,
    memoryMib: 1024,
    maxProcesses: 4096,
    root: {
      type: "disk",
      path: "/state/disks/0123/disk.qcow2",
      format: "qcow2",
      boot: { kernel: "/images/x/vmlinuz", initrd: "/images/x/initrd", commandLine: "root=UUID=1 rw" },
    },
    nics: [nic],
    seed: { metaData: "", userData: "", networkConfig: "" },
    config: {},
    ...overrides,
  };
}

const descriptors: Descriptors = {
  qmp: 5,
  events: 26,
  console: 6,
  agent: 7,
  exec: execChardevs.map((_, index) => 8 + index),
  consoleLog: 20,
  seed: 21,
  disk: [
    { fd: 22, format: "qcow2", direct: true },
    { fd: 23, format: "qcow2", direct: false },
  ],
  kernel: 24,
  initrd: 25,
  vhost: [],
};

/** One option with its value a line: reads like the command line, and shows what changed. */
function lines(args: readonly string[]): string {
  return args.join(" ").replaceAll(" -", "\n-");
}

describe("qemuArguments", () => {
  it("boots a kernel directly under KVM", () => {
    expect(lines(qemuArguments(guest(), kvm, { ...descriptors, vhost: [27] }))).toMatchInlineSnapshot(`
      "-nodefaults
      -no-user-config
      -display none
      -machine q35,memory-backend=ram,sata=off,smbus=off,usb=off,i8042=off,vmport=off,dump-guest-core=off
      -accel kvm
      -cpu host
      -smp cpus=2,maxcpus=8,sockets=1,cores=8,threads=1
      -m size=1024M,maxmem=4096M
      -object memory-backend-ram,id=ram,size=1024M,merge=off,dump=off
      -rtc base=utc,driftfix=slew
      -global ICH9-LPC.disable_s3=1
      -global ICH9-LPC.disable_s4=1
      -sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny
      -action reboot=reset,shutdown=poweroff,panic=exit-failure
      -msg timestamp=on
      -name guest=default/web-1,debug-threads=on
      -uuid ec2e8608-db54-84bb-9d6f-6476c271d061
      -smbios type=1,manufacturer=Strata,product=Virtual Machine,serial=ec2e8608-db54-84bb-9d6f-6476c271d061,uuid=ec2e8608-db54-84bb-9d6f-6476c271d061
      -chardev socket,id=qmp,fd=5,server=on,wait=off
      -mon chardev=qmp,mode=control
      -chardev socket,id=events,fd=26,server=on,wait=off
      -mon chardev=events,mode=control
      -add-fd fd=20,set=20
      -chardev socket,id=console,fd=6,server=on,wait=off,logfile=/dev/fdset/20,logappend=on
      -serial chardev:console
      -chardev socket,id=agent,fd=7,server=on,wait=off
      -chardev socket,id=exec0-in,fd=8,server=on,wait=off
      -chardev socket,id=exec0-out,fd=9,server=on,wait=off
      -chardev socket,id=exec0-err,fd=10,server=on,wait=off
      -chardev socket,id=exec1-in,fd=11,server=on,wait=off
      -chardev socket,id=exec1-out,fd=12,server=on,wait=off
      -chardev socket,id=exec1-err,fd=13,server=on,wait=off
      -chardev socket,id=exec2-in,fd=14,server=on,wait=off
      -chardev socket,id=exec2-out,fd=15,server=on,wait=off
      -chardev socket,id=exec2-err,fd=16,server=on,wait=off
      -chardev socket,id=exec3-in,fd=17,server=on,wait=off
      -chardev socket,id=exec3-out,fd=18,server=on,wait=off
      -chardev socket,id=exec3-err,fd=19,server=on,wait=off
      -kernel /proc/self/fd/24
      -initrd /proc/self/fd/25
      -append root=UUID=1 rw console=ttyS0 hostname=web-1 swiotlb=noforce memhp_default_state=online_movable
      -add-fd fd=22,set=22
      -add-fd fd=23,set=23
      -add-fd fd=21,set=21
      -blockdev {"node-name":"root","discard":"unmap","driver":"qcow2","backing":{"driver":"qcow2","backing":null,"read-only":true,"file":{"driver":"file","filename":"/dev/fdset/23","read-only":true,"cache":{"direct":false}}},"file":{"driver":"file","filename":"/dev/fdset/22","aio":"threads","discard":"unmap","cache":{"direct":true}}}
      -blockdev {"node-name":"seed","driver":"raw","read-only":true,"file":{"driver":"file","filename":"/dev/fdset/21","read-only":true}}
      -device virtio-blk-pci-non-transitional,drive=root,serial=root,werror=enospc,rerror=report,addr=0x3
      -device virtio-blk-pci-non-transitional,drive=seed,serial=seed,addr=0x4
      -device virtio-scsi-pci-non-transitional,id=disks,addr=0xa
      -device pcie-root-port,id=plug1,chassis=1,slot=1,io-reserve=0,addr=0x9.0x0,multifunction=on
      -device pcie-root-port,id=plug2,chassis=2,slot=2,io-reserve=0,addr=0x9.0x1
      -device pcie-root-port,id=plug3,chassis=3,slot=3,io-reserve=0,addr=0x9.0x2
      -device pcie-root-port,id=plug4,chassis=4,slot=4,io-reserve=0,addr=0x9.0x3
      -device pcie-root-port,id=plug5,chassis=5,slot=5,io-reserve=0,addr=0x9.0x4
      -device pcie-root-port,id=plug6,chassis=6,slot=6,io-reserve=0,addr=0x9.0x5
      -device pcie-root-port,id=plug7,chassis=7,slot=7,io-reserve=0,addr=0x9.0x6
      -netdev tap,id=net0,ifname=p0123456789,script=no,downscript=no,vhost=on,vhostfd=27
      -device virtio-net-pci-non-transitional,id=nic0,netdev=net0,mac=52:54:00:12:34:56,host_mtu=1450,romfile=,addr=0x10
      -object rng-builtin,id=random
      -device virtio-rng-pci-non-transitional,rng=random,addr=0x5
      -device virtio-balloon-pci-non-transitional,id=balloon,free-page-reporting=on,deflate-on-oom=on,addr=0x6
      -device virtio-serial-pci-non-transitional,id=ports,addr=0x7
      -device virtserialport,id=agent,bus=ports.0,chardev=agent,name=org.qemu.guest_agent.0
      -device pvpanic
      -object memory-backend-ram,id=hot,size=3072M,merge=off,dump=off,reserve=off
      -device virtio-mem-pci,id=memory,memdev=hot,block-size=2M,requested-size=0,addr=0x8"
    `);
  });

  it("plugs in each volume as a SCSI disk that is found by its id", () => {
    const id = "0123456789abcdef" as Uid;
    const spec = guest({ volumes: [{ type: "disk", id, path: "/v/data.raw" }] });
    const args = qemuArguments(spec, kvm, { ...descriptors, volumes: [{ fd: 40, direct: true }] });
    const from = args.indexOf("virtio-scsi-pci-non-transitional,id=disks,addr=0xa");
    expect(args.slice(from + 1, from + 7)).toEqual([
      "-add-fd",
      `fd=40,set=40,opaque=volume-${id}`,
      "-blockdev",
      `{"node-name":"volume-${id}","driver":"raw","discard":"unmap","cache":{"direct":true},"file":{"driver":"file","filename":"/dev/fdset/40","aio":"threads","discard":"unmap","cache":{"direct":true}}}`,
      "-device",
      `{"driver":"scsi-hd","id":"disk-${id}","bus":"disks.0","drive":"volume-${id}","serial":"${id}","werror":"enospc","rerror":"report"}`,
    ]);
  });

  it("emulates where KVM is not proven", () => {
    const args = lines(qemuArguments(guest({ cpus: 1, memoryMib: 512, nics: [] }), tcg, descriptors));
    expect(args).toMatchInlineSnapshot(`
      "-nodefaults
      -no-user-config
      -display none
      -machine q35,memory-backend=ram,sata=off,smbus=off,usb=off,i8042=off,vmport=off,dump-guest-core=off
      -accel tcg,thread=multi,tb-size=128
      -cpu max,la57=off
      -smp cpus=1,maxcpus=8,sockets=1,cores=8,threads=1
      -m size=512M,maxmem=2048M
      -object memory-backend-ram,id=ram,size=512M,merge=off,dump=off
      -rtc base=utc,driftfix=slew
      -global ICH9-LPC.disable_s3=1
      -global ICH9-LPC.disable_s4=1
      -sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny
      -action reboot=reset,shutdown=poweroff,panic=exit-failure
      -msg timestamp=on
      -name guest=default/web-1,debug-threads=on
      -uuid ec2e8608-db54-84bb-9d6f-6476c271d061
      -smbios type=1,manufacturer=Strata,product=Virtual Machine,serial=ec2e8608-db54-84bb-9d6f-6476c271d061,uuid=ec2e8608-db54-84bb-9d6f-6476c271d061
      -chardev socket,id=qmp,fd=5,server=on,wait=off
      -mon chardev=qmp,mode=control
      -chardev socket,id=events,fd=26,server=on,wait=off
      -mon chardev=events,mode=control
      -add-fd fd=20,set=20
      -chardev socket,id=console,fd=6,server=on,wait=off,logfile=/dev/fdset/20,logappend=on
      -serial chardev:console
      -chardev socket,id=agent,fd=7,server=on,wait=off
      -chardev socket,id=exec0-in,fd=8,server=on,wait=off
      -chardev socket,id=exec0-out,fd=9,server=on,wait=off
      -chardev socket,id=exec0-err,fd=10,server=on,wait=off
      -chardev socket,id=exec1-in,fd=11,server=on,wait=off
      -chardev socket,id=exec1-out,fd=12,server=on,wait=off
      -chardev socket,id=exec1-err,fd=13,server=on,wait=off
      -chardev socket,id=exec2-in,fd=14,server=on,wait=off
      -chardev socket,id=exec2-out,fd=15,server=on,wait=off
      -chardev socket,id=exec2-err,fd=16,server=on,wait=off
      -chardev socket,id=exec3-in,fd=17,server=on,wait=off
      -chardev socket,id=exec3-out,fd=18,server=on,wait=off
      -chardev socket,id=exec3-err,fd=19,server=on,wait=off
      -kernel /proc/self/fd/24
      -initrd /proc/self/fd/25
      -append root=UUID=1 rw console=ttyS0 hostname=web-1 swiotlb=noforce memhp_default_state=online_movable tsc_early_khz=2596096 no_timer_check cryptomgr.notests
      -add-fd fd=22,set=22
      -add-fd fd=23,set=23
      -add-fd fd=21,set=21
      -blockdev {"node-name":"root","discard":"unmap","driver":"qcow2","backing":{"driver":"qcow2","backing":null,"read-only":true,"file":{"driver":"file","filename":"/dev/fdset/23","read-only":true,"cache":{"direct":false}}},"file":{"driver":"file","filename":"/dev/fdset/22","aio":"threads","discard":"unmap","cache":{"direct":true}}}
      -blockdev {"node-name":"seed","driver":"raw","read-only":true,"file":{"driver":"file","filename":"/dev/fdset/21","read-only":true}}
      -device virtio-blk-pci-non-transitional,drive=root,serial=root,werror=enospc,rerror=report,addr=0x3
      -device virtio-blk-pci-non-transitional,drive=seed,serial=seed,addr=0x4
      -device virtio-scsi-pci-non-transitional,id=disks,addr=0xa
      -device pcie-root-port,id=plug1,chassis=1,slot=1,io-reserve=0,addr=0x9.0x0,multifunction=on
      -device pcie-root-port,id=plug2,chassis=2,slot=2,io-reserve=0,addr=0x9.0x1
      -device pcie-root-port,id=plug3,chassis=3,slot=3,io-reserve=0,addr=0x9.0x2
      -device pcie-root-port,id=plug4,chassis=4,slot=4,io-reserve=0,addr=0x9.0x3
      -device pcie-root-port,id=plug5,chassis=5,slot=5,io-reserve=0,addr=0x9.0x4
      -device pcie-root-port,id=plug6,chassis=6,slot=6,io-reserve=0,addr=0x9.0x5
      -device pcie-root-port,id=plug7,chassis=7,slot=7,io-reserve=0,addr=0x9.0x6
      -object rng-builtin,id=random
      -device virtio-rng-pci-non-transitional,rng=random,addr=0x5
      -device virtio-balloon-pci-non-transitional,id=balloon,free-page-reporting=on,deflate-on-oom=on,addr=0x6
      -device virtio-serial-pci-non-transitional,id=ports,addr=0x7
      -device virtserialport,id=agent,bus=ports.0,chardev=agent,name=org.qemu.guest_agent.0
      -device pvpanic
      -object memory-backend-ram,id=hot,size=1536M,merge=off,dump=off,reserve=off
      -device virtio-mem-pci,id=memory,memdev=hot,block-size=2M,requested-size=0,addr=0x8"
    `);
  });

  it("lets a disk boot by itself, with the firmware", () => {
    const root = { type: "disk", path: "/state/d.raw", format: "raw" } as const;
    const { kernel: _kernel, initrd: _initrd, ...fds } = descriptors;
    const args = qemuArguments(guest({ root }), kvm, {
      ...fds,
      disk: [{ fd: 22, format: "raw", direct: false }],
    });
    expect(args).not.toContain("-kernel");
    expect(lines(args)).not.toMatch(/virtio-mem|maxmem/); // nobody could tell its kernel about it
    expect(lines(args)).toMatch(/virtio-blk-pci-non-transitional,drive=root,.*,bootindex=0/);
    expect(JSON.parse(args[args.indexOf("-blockdev") + 1] ?? "")).toEqual({
      "node-name": "root",
      discard: "unmap",
      driver: "raw",
      file: {
        driver: "file",
        filename: "/dev/fdset/22",
        aio: "threads",
        discard: "unmap",
        cache: { direct: false },
      },
    });
  });

  it("gives a disk that starts by UEFI its firmware, with variables of the guest's own", () => {
    const root = { type: "disk", path: "/state/d.qcow2", format: "qcow2", firmware: "uefi" } as const;
    const { kernel: _kernel, initrd: _initrd, ...fds } = descriptors;
    const args = qemuArguments(guest({ root }), kvm, { ...fds, firmware: { code: 30, variables: 31 } });
    expect(args[args.indexOf("-machine") + 1]).toMatch(/,pflash0=firmware,pflash1=variables$/);
    const nodes = args.flatMap((arg, index) =>
      arg === "-blockdev" ? [JSON.parse(args[index + 1] ?? "")] : [],
    );
    const chip = (name: string, fd: number, readOnly: boolean) => ({
      "node-name": name,
      driver: "raw",
      "read-only": readOnly,
      file: { driver: "file", filename: `/dev/fdset/${fd}`, "read-only": readOnly },
    });
    expect(nodes).toContainEqual(chip("firmware", 30, true));
    expect(nodes).toContainEqual(chip("variables", 31, false));
    expect(lines(args)).toMatch(/-add-fd fd=31,set=31/);
  });

  it("plugs further cards into ports of their own, which they can be taken out of", () => {
    const nics = [nic, { ...nic, port: "p2" }, { ...nic, port: "p3" }];
    const text = lines(
      qemuArguments(guest({ nics }), kvm, { ...descriptors, vhost: [27, 28, 29] }, [0, 5, 1]),
    );
    expect(text).toContain("tap,id=net0,ifname=p0123456789,script=no,downscript=no,vhost=on,vhostfd=27\n");
    expect(text).toMatch(/virtio-net-pci-non-transitional,id=nic0,netdev=net0,.*,addr=0x10\n/);
    expect(text).toContain("tap,id=net5,ifname=p2,script=no,downscript=no,vhost=on,vhostfd=28\n");
    expect(text).toMatch(/virtio-net-pci-non-transitional,id=nic5,netdev=net5,.*,bus=plug5\n/);
    expect(text).toMatch(/virtio-net-pci-non-transitional,id=nic1,netdev=net1,.*,bus=plug1\n/);
    expect(hotCard(nic, 5)).toEqual({
      netdev: { type: "tap", id: "net5", ifname: "p0123456789", script: "no", downscript: "no" },
      device: {
        driver: "virtio-net-pci-non-transitional",
        id: "nic5",
        netdev: "net5",
        mac: "52:54:00:12:34:56",
        host_mtu: 1450,
        romfile: "",
        bus: "plug5",
      },
    });
  });

  it("has room to grow: at least 8 processors and 1 GiB, four times what it began with, within bounds", () => {
    expect([1, 2, 3, 60, 61, 250].map(maxCpus)).toEqual([8, 8, 12, 240, 240, 250]);
    const sized = (memoryMib: number) => hotMemoryMib(guest({ memoryMib }));
    expect([16, 512, 1000].map(sized)).toEqual([1024, 1536, 3072]);
  });

  it("takes another CPU model when asked to, under KVM only", () => {
    const cautious = guest({ config: { cpuModel: "EPYC-v3" } });
    expect(qemuArguments(cautious, kvm, descriptors)).toContain("EPYC-v3");
    expect(qemuArguments(cautious, tcg, descriptors)).not.toContain("EPYC-v3");
  });

  it("holds no path of ours, whatever the guest's files are called", () => {
    const text = qemuArguments(guest(), kvm, descriptors).join(" ");
    expect(text).not.toMatch(/\/state|\/images|\/run\//);
  });

  it("keeps a comma inside a value", () => {
    const args = qemuArguments(guest({ title: "a,b" }), kvm, descriptors);
    expect(args).toContain("guest=a,,b,debug-threads=on");
  });
});

describe("kernelCommandLine", () => {
  it("adds the console, the host name, what memory that comes needs and, when emulating, what keeps the clock from hanging", () => {
    expect(kernelCommandLine("root=UUID=1 rw", "web-1", kvm)).toBe(
      "root=UUID=1 rw console=ttyS0 hostname=web-1 swiotlb=noforce memhp_default_state=online_movable",
    );
    expect(kernelCommandLine("root=UUID=1", "web-1", tcg)).toBe(
      "root=UUID=1 console=ttyS0 hostname=web-1 swiotlb=noforce memhp_default_state=online_movable tsc_early_khz=2596096 no_timer_check cryptomgr.notests",
    );
  });

  it("leaves the image's own choices alone", () => {
    const own = "console=tty0 hostname=own swiotlb=force memhp_default_state=offline tsc_early_khz=1";
    expect(kernelCommandLine(own, "web-1", tcg)).toBe(`${own} no_timer_check cryptomgr.notests`);
  });
});

describe("machineUuid", () => {
  it("is a UUID that depends on the uid alone", () => {
    const uuid = machineUuid("0123456789abcdef" as Uid);
    expect(uuid).toMatch(/^ec2[0-9a-f]{5}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
    expect(machineUuid("0123456789abcdef" as Uid)).toBe(uuid);
    expect(machineUuid("0123456789abcdeg" as Uid)).not.toBe(uuid);
  });
});
