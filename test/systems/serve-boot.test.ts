import { execFile, spawn } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { Serving } from "@holdfast/shared/contracts/standalone";
import { expect, onTestFinished, test } from "vitest";
import { buildBoot } from "../testbeds/kvm-guest.ts";
import { installMissing, shell } from "../testbeds/run.ts";

/** A machine whose root file system is a recovery point: QEMU under TCG, a writable overlay, the real command. */
const command = fileURLToPath(new URL("../../console/cli/bin/holdfast.mjs", import.meta.url));
const run = promisify(execFile);
const MiB = 1024 ** 2;

/** The initial RAM disk's part: finds the disk and goes over to what is on it. */
const stub = `#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t devtmpfs dev /dev
for m in virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci virtio_blk; do
  insmod /lib/modules/$m.ko
done
mount -t ext4 /dev/vda /mnt || poweroff -f
mount --move /dev /mnt/dev; umount /proc
exec switch_root /mnt /sbin/init
`;

/** The disk's own part: reads all of the payload, writes, and says so on the serial console. */
const diskInit = `#!/bin/busybox sh
echo "PAYLOAD $(/bin/busybox sha256sum /payload | /bin/busybox cut -d' ' -f1)"
echo "written by the guest" > /written && /bin/busybox sync && echo "WROTE $(/bin/busybox cat /written)"
/bin/busybox mount -o remount,ro /
/bin/busybox poweroff -f
`;

test("a machine boots from a recovery point that is served, and writes into its overlay only", async ({
  skip,
}) => {
  const folder = mkdtempSync(join(tmpdir(), "holdfast-boot-"));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  const at = (name: string): string => join(folder, name);
  try {
    await installMissing(["qemu-system-x86", "busybox-static", "cpio"], () => undefined);
    await buildBoot({ folder }, () => undefined);
  } catch (error) {
    skip(`no kernel for a guest: ${String(error)}`);
  }
  const payload = randomBytes(24 * MiB);
  for (const part of ["bin", "sbin", "dev", "proc"])
    mkdirSync(at(`root/${part}`), { recursive: true });
  writeFileSync(at("root/payload"), payload);
  writeFileSync(at("root/sbin/init"), diskInit);
  chmodSync(at("root/sbin/init"), 0o755);
  mkdirSync(at("stub"));
  writeFileSync(at("stub/stub"), stub);
  chmodSync(at("stub/stub"), 0o755);
  const prepare = `
    cp /bin/busybox "$1/root/bin/"; truncate -s 96M "$1/disk.raw"
    mkfs.ext4 -q -F -d "$1/root" "$1/disk.raw"
    cd "$1/stub"; (cat "$1/boot/initrd"; echo stub | cpio -o -H newc --quiet | gzip -1) > "$1/initrd"`;
  await shell(prepare, [folder]);

  const env = { PATH: process.env["PATH"], HOME: folder, HOLDFAST_PASSPHRASE: "correct horse" };
  const holdfast = async (...words: readonly string[]): Promise<string> =>
    (await run(process.execPath, [command, ...words], { env })).stdout;
  await holdfast("repository", "init", at("repository"));
  const words = ["image", "backup", at("disk.raw"), "--repository", at("repository"), "--json"];
  const lines = (await holdfast(...words)).trimEnd().split("\n");
  const { pointId } = JSON.parse(lines.at(-1) ?? "").result.point;

  const serving = spawn(
    process.execPath,
    [command, "serve", pointId, "--repository", at("repository"), "--json"],
    { env, stdio: ["ignore", "pipe", "inherit"] },
  );
  const served = new Promise((resolve) => serving.once("close", resolve));
  try {
    const first = await createInterface({ input: serving.stdout })[Symbol.asyncIterator]().next();
    const uri = Serving.parse(JSON.parse(String(first.value))).exports[0]?.uri ?? "";
    const overlay = at("overlay.qcow2");
    await run("qemu-img", ["create", "-q", "-f", "qcow2", "-F", "raw", "-b", uri, overlay]);
    const machine = [
      ...[
        "-machine",
        "q35,accel=tcg",
        "-m",
        "160",
        "-nodefaults",
        "-no-reboot",
        "-display",
        "none",
      ],
      ...["-serial", `file:${at("console")}`, "-drive", `file=${overlay},format=qcow2,if=virtio`],
      ...["-kernel", at("boot/vmlinuz"), "-initrd", at("initrd")],
      ...["-append", "console=ttyS0 quiet mitigations=off no_timer_check rdinit=/stub panic=-1"],
    ];
    await run("qemu-system-x86_64", machine, { timeout: 240_000 });
    const said = readFileSync(at("console"), "utf8");
    expect(said).toContain(`PAYLOAD ${createHash("sha256").update(payload).digest("hex")}`);
    expect(said).toContain("WROTE written by the guest");
    await run("qemu-img", ["compare", "-f", "raw", "-F", "raw", at("disk.raw"), uri]);
    // The overlay has what was written: it is another disk by now.
    const compare = ["compare", "-f", "raw", "-F", "qcow2", at("disk.raw"), overlay];
    await expect(run("qemu-img", compare)).rejects.toMatchObject({ code: 1 });
  } finally {
    serving.kill("SIGINT");
    expect(await served).toBe(0);
  }
});
