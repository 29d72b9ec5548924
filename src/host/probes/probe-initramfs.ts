/**
 * The smallest guest that proves a hypervisor: an initramfs whose init is a hand-assembled static program that prints
 * one line on the console and powers off. The host needs neither a busybox nor a compiler for it.
 */
import { cpioArchive } from "./cpio.ts";

/** What the guest prints once its kernel has reached user space. */
export const probeMarker = "strata: user space reached";

const loadAddress = 0x400000;
const elfHeaderBytes = 64;
const programHeaderBytes = 56;

/** An initramfs for x86-64 kernels. */
export function probeInitramfs(): Uint8Array {
  return cpioArchive([
    { type: "directory", path: "dev", mode: 0o755 },
    // The kernel opens /dev/console as init's standard streams before any devtmpfs is mounted.
    { type: "character-device", path: "dev/console", mode: 0o600, major: 5, minor: 1 },
    { type: "file", path: "init", mode: 0o755, content: initProgram(`\n${probeMarker}\n`) },
  ]);
}

/** A static x86-64 ELF program: write(1, text), reboot(POWER_OFF), then pause for ever. */
export function initProgram(text: string): Uint8Array {
  const message = Buffer.from(text);
  const code = machineCode(message.length);
  const body = Buffer.concat([code, message]);
  const header = Buffer.alloc(elfHeaderBytes + programHeaderBytes);
  const fileBytes = header.length + body.length;
  Buffer.from([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]).copy(header); // ELF, 64 bit, little endian, version 1
  header.writeUInt16LE(2, 16); // ET_EXEC
  header.writeUInt16LE(62, 18); // EM_X86_64
  header.writeUInt32LE(1, 20);
  header.writeBigUInt64LE(BigInt(loadAddress + header.length), 24); // entry point
  header.writeBigUInt64LE(BigInt(elfHeaderBytes), 32); // program headers follow
  header.writeUInt16LE(elfHeaderBytes, 52);
  header.writeUInt16LE(programHeaderBytes, 54);
  header.writeUInt16LE(1, 56);
  const segment = elfHeaderBytes;
  header.writeUInt32LE(1, segment); // PT_LOAD
  header.writeUInt32LE(5, segment + 4); // read and execute
  header.writeBigUInt64LE(BigInt(loadAddress), segment + 16);
  header.writeBigUInt64LE(BigInt(loadAddress), segment + 24);
  header.writeBigUInt64LE(BigInt(fileBytes), segment + 32);
  header.writeBigUInt64LE(BigInt(fileBytes), segment + 40);
  header.writeBigUInt64LE(0x1000n, segment + 48);
  return Buffer.concat([header, body]);
}

/** The message must follow the code directly: its address is taken relative to the instruction pointer. */
function machineCode(messageBytes: number): Buffer {
  const afterLea = [
    ...[0xba, ...littleEndian(messageBytes)], // mov edx, length
    ...[0x0f, 0x05], // syscall: write
    ...[0xb8, ...littleEndian(169)], // mov eax, reboot
    ...[0xbf, ...littleEndian(0xfee1dead)], // mov edi, LINUX_REBOOT_MAGIC1
    ...[0xbe, ...littleEndian(0x28121969)], // mov esi, LINUX_REBOOT_MAGIC2
    ...[0xba, ...littleEndian(0x4321fedc)], // mov edx, LINUX_REBOOT_CMD_POWER_OFF
    ...[0x0f, 0x05], // syscall
    ...[0xb8, ...littleEndian(34)], // mov eax, pause
    ...[0x0f, 0x05], // syscall
    ...[0xeb, 0xf7], // jmp: back to the mov before the last syscall
  ];
  return Buffer.from([
    ...[0xb8, ...littleEndian(1)], // mov eax, write
    ...[0xbf, ...littleEndian(1)], // mov edi, standard output
    ...[0x48, 0x8d, 0x35, ...littleEndian(afterLea.length)], // lea rsi, [rip + distance to the message]
    ...afterLea,
  ]);
}

function littleEndian(value: number): number[] {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return [...bytes];
}
