/**
 * A tiny real guest under TCG: Debian's cloud kernel, busybox, the real qemu-guest-agent. It keeps writing the same
 * rising counter to each of its ext4 disks, so that they change and can be compared. Needs a host of `kvm-host.ts`.
 */
import { access, mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { KvmHost } from "./kvm-host.ts";
import { installMissing, run, shell, waitUntil } from "./run.ts";

export type GuestDisk = {
  /** `vda`, `vdb`, …, in order. */
  readonly target: string;
  readonly format: "qcow2" | "raw";
  readonly mebibytes: number;
  /** An RBD image instead of a file: `pool/image`, reached by this configuration file. */
  readonly rbd?: { readonly image: string; readonly configFile: string };
  /** A block device instead of a file; raw. It gets a new file system. */
  readonly device?: string;
  /** A template that stays shared; the guest's disk is an overlay over it. */
  readonly template?: string;
};

export type GuestOptions = {
  readonly disks?: readonly GuestDisk[];
  readonly memoryMebibytes?: number;
  readonly uefi?: boolean;
  /** Define only; see `start`. Default true. */
  readonly start?: boolean;
  /** Seconds between two writes of the guest. */
  readonly periodSeconds?: number;
  readonly say?: (line: string) => void;
};

export type Guest = {
  readonly name: string;
  readonly uuid: string;
  file(target: string): string;
  start(): Promise<void>;
  /** Asks the guest to power off and waits for it. */
  shutdown(): Promise<void>;
  /** Pulls the plug. */
  destroy(): Promise<void>;
  /** Kills QEMU itself with SIGKILL, as an out-of-memory host would. */
  kill(): Promise<void>;
  /** Runs a shell script in the guest and returns its output. */
  execute(script: string): Promise<string>;
  /** Stops the agent's process in the guest, after starting `meanwhile` there. */
  stopAgent(meanwhile: string): Promise<void>;
  /** Ends and removes the guest, its definition and every file of its name. */
  remove(): Promise<void>;
};

const defaultDisks: readonly GuestDisk[] = [
  { target: "vda", format: "qcow2", mebibytes: 256 },
  { target: "vdb", format: "raw", mebibytes: 64 },
];

export async function startGuest(
  host: KvmHost,
  name: string,
  options: GuestOptions = {},
): Promise<Guest> {
  await buildBoot(host, options.say ?? (() => undefined));
  if (options.uefi === true) await installMissing(["ovmf"], options.say ?? (() => undefined));
  const disks = options.disks ?? defaultDisks;
  const defined = await host.virsh("list", "--all", "--name");
  if (!defined.split("\n").includes(name)) {
    for (const disk of disks) await makeDisk(host, name, disk);
    const file = join(host.folder, "run", `${name}.xml`);
    await writeFile(file, domainXml(host, name, disks, options));
    await host.virsh("define", file);
  }
  const guest = openGuest(host, name, (await host.virsh("domuuid", name)).trim());
  if (options.start !== false) await guest.start();
  return guest;
}

/** A guest that exists already, for example one that was restored. */
export async function findGuest(host: KvmHost, name: string): Promise<Guest> {
  return openGuest(host, name, (await host.virsh("domuuid", name)).trim());
}

export function diskFile(host: KvmHost, name: string, disk: GuestDisk): string {
  return join(host.images, `${name}-${disk.target}.${disk.format}`);
}

function openGuest(host: KvmHost, name: string, uuid: string): Guest {
  const state = async () => (await host.virsh("domstate", uuid)).trim();
  const agent = async (command: object): Promise<unknown> =>
    JSON.parse(
      await host.virsh("qemu-agent-command", uuid, "--timeout", "10", JSON.stringify(command)),
    );
  const answers = () =>
    agent({ execute: "guest-ping" }).then(
      () => true,
      () => false,
    );
  return {
    name,
    uuid,
    file: (target) => join(host.images, `${name}-${target}`),
    start: async () => {
      if ((await state()) !== "running") await host.virsh("start", uuid);
      await waitUntil(`the agent of ${name} answers`, answers, 120_000);
    },
    shutdown: async () => {
      await host.virsh("shutdown", uuid, "--mode", "agent");
      await waitUntil(`${name} is off`, async () => (await state()) === "shut off", 60_000);
    },
    destroy: async () => {
      if ((await state()) !== "shut off") await host.virsh("destroy", uuid);
    },
    kill: async () => {
      const pidFile = `/run/libvirt/qemu/${name}.pid`;
      process.kill(Number(await readFile(pidFile, "utf8")), "SIGKILL");
      await waitUntil(`${name} is off`, async () => (await state()) === "shut off", 60_000);
    },
    execute: (script) => executeInGuest(agent, script),
    stopAgent: async (meanwhile) => {
      const script = `${meanwhile} (sleep 0.3; kill -STOP $(pidof qemu-ga)) </dev/null >/dev/null 2>&1 &`;
      await host.virsh(
        "qemu-agent-command",
        uuid,
        JSON.stringify({
          execute: "guest-exec",
          arguments: { path: "/bin/sh", arg: ["-c", script] },
        }),
      );
      await new Promise((resolve) => setTimeout(resolve, 1500));
    },
    remove: async () => {
      if (!(await host.virsh("list", "--all", "--uuid")).includes(uuid)) return;
      if ((await state()) !== "shut off") await host.virsh("destroy", uuid);
      const flags = ["--checkpoints-metadata", "--snapshots-metadata", "--nvram"];
      await host.virsh("undefine", uuid, ...flags);
      await shell('rm -f -- "$1/$2"-*', [host.images, name]);
      await rm(join(host.folder, "run", `${name}.xml`), { force: true });
    },
  };
}

async function executeInGuest(
  agent: (command: object) => Promise<unknown>,
  script: string,
): Promise<string> {
  const started = (await agent({
    execute: "guest-exec",
    arguments: { path: "/bin/sh", arg: ["-c", script], "capture-output": true },
  })) as { return: { pid: number } };
  type Status = {
    return: { exited: boolean; exitcode?: number; "out-data"?: string; "err-data"?: string };
  };
  let status: Status | undefined;
  await waitUntil("the command in the guest ends", async () => {
    status = (await agent({
      execute: "guest-exec-status",
      arguments: { pid: started.return.pid },
    })) as Status;
    return status.return.exited;
  });
  const decode = (text = "") => Buffer.from(text, "base64").toString("utf8");
  if (status?.return.exitcode !== 0) {
    throw new Error(
      `in the guest: exit ${status?.return.exitcode}: ${decode(status?.return["err-data"])}`,
    );
  }
  return decode(status.return["out-data"]);
}

async function makeDisk(host: KvmHost, name: string, disk: GuestDisk): Promise<void> {
  const file = diskFile(host, name, disk);
  if (disk.rbd !== undefined) return;
  if (disk.device !== undefined) {
    await run("mkfs.ext4", ["-q", "-F", disk.device]);
    return;
  }
  if (disk.template !== undefined) {
    const over = ["-q", "-f", "qcow2", "-F", "qcow2", "-b", disk.template, file];
    await run("qemu-img", ["create", ...over]);
    return;
  }
  const raw = `${file}.tmp`;
  await shell('truncate -s "$2M" "$1"; mkfs.ext4 -q -F -L "$3" "$1"', [
    raw,
    String(disk.mebibytes),
    name.slice(0, 16),
  ]);
  if (disk.format === "raw") await run("mv", [raw, file]);
  else await run("qemu-img", ["convert", "-f", "raw", "-O", "qcow2", raw, file]);
  await rm(raw, { force: true });
}

function domainXml(
  host: KvmHost,
  name: string,
  disks: readonly GuestDisk[],
  options: GuestOptions,
): string {
  const boot = join(host.folder, "boot");
  const firmware =
    options.uefi === true
      ? `<loader readonly='yes' type='pflash'>/usr/share/OVMF/OVMF_CODE_4M.fd</loader>
    <nvram template='/usr/share/OVMF/OVMF_VARS_4M.fd'>${host.images}/${name}-VARS.fd</nvram>`
      : "";
  const diskXml = disks.map((disk) =>
    disk.rbd === undefined
      ? `<disk type='${disk.device === undefined ? "file" : "block"}' device='disk'>
      <driver name='qemu' type='${disk.format}' discard='unmap'/>
      <source ${sourceOf(host, name, disk)}/><target dev='${disk.target}' bus='virtio'/>
      <serial>${name}-${disk.target}</serial>
    </disk>`
      : `<disk type='network' device='disk'>
      <driver name='qemu' type='raw' discard='unmap'/>
      <source protocol='rbd' name='${disk.rbd.image}'><config file='${disk.rbd.configFile}'/></source>
      <target dev='${disk.target}' bus='virtio'/>
    </disk>`,
  );
  // no_timer_check: on a busy machine the emulated timer is late, and the kernel would take it for broken and panic.
  return `<domain type='qemu'>
  <name>${name}</name>
  <memory unit='MiB'>${options.memoryMebibytes ?? (options.uefi === true ? 192 : 128)}</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
    ${firmware}
    <kernel>${boot}/vmlinuz</kernel>
    <initrd>${boot}/initrd</initrd>
    <cmdline>console=ttyS0 quiet mitigations=off no_timer_check PERIOD=${options.periodSeconds ?? 0.5}</cmdline>
  </os>
  <features><acpi/><tcg><tb-cache unit='MiB'>32</tb-cache></tcg></features>
  <on_reboot>restart</on_reboot>
  <devices>
    ${diskXml.join("\n    ")}
    <controller type='usb' model='none'/>
    <serial type='file'><source path='${host.folder}/log/${name}.console' append='on'/></serial>
    <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
    <memballoon model='none'/>
  </devices>
</domain>
`;
}

const sourceOf = (host: KvmHost, name: string, disk: GuestDisk) =>
  disk.device === undefined ? `file='${diskFile(host, name, disk)}'` : `dev='${disk.device}'`;

const modules =
  "virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci virtio_blk virtio_console";

const init = `#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev; mount -t tmpfs run /run
for m in ${modules}; do insmod /lib/modules/$m.ko; done
for p in /sys/block/vd*; do
  d=\${p##*/}; mkdir -p /mnt/$d
  mount -t ext4 /dev/$d /mnt/$d && echo "mounted $d counter $(cat /mnt/$d/counter)"
done
for p in /sys/class/virtio-ports/*; do
  case $(cat $p/name) in org.qemu.guest_agent.0) qemu-ga -d -m virtio-serial -p /dev/\${p##*/} -t /run;; esac
done
echo "GUEST READY after $(cut -d' ' -f1 /proc/uptime) s"
n=$(cat /mnt/vda/counter 2>/dev/null || echo 0)
while [ ! -e /run/stop ]; do
  n=$((n+1))
  for d in /mnt/vd*; do
    [ -d $d/lost+found ] || continue
    head -c 65536 /dev/urandom > $d/file$((n%16)); sha256sum $d/file$((n%16)) > $d/file$((n%16)).sha256
    echo $n > $d/counter.new; mv $d/counter.new $d/counter; sync
  done
  sleep \${PERIOD:-0.5}
done
while :; do sleep 60; done
`;

const shutdown = `#!/bin/sh
touch /run/stop; sleep 1; sync; umount /mnt/vd*
case "$*" in *-r*) reboot -f;; *) poweroff -f;; esac
`;

/** Kernel and initial RAM disk in `boot/`, once per host folder; the latter has busybox and virtio modules. */
export async function buildBoot(
  host: Pick<KvmHost, "folder">,
  say: (line: string) => void,
): Promise<void> {
  const boot = join(host.folder, "boot");
  if (
    await access(join(boot, "initrd")).then(
      () => true,
      () => false,
    )
  )
    return;
  say("downloading a Debian cloud kernel and qemu-guest-agent for the test guest");
  const work = `${boot}.new`;
  await rm(work, { recursive: true, force: true });
  const root = join(work, "root");
  for (const part of [
    "bin",
    "sbin",
    "proc",
    "sys",
    "dev",
    "run",
    "tmp",
    "mnt",
    "lib/modules",
    "etc",
    "var",
  ]) {
    await mkdir(join(root, part), { recursive: true });
  }
  await writeFile(join(root, "init"), init, { mode: 0o755 });
  await writeFile(join(root, "sbin/shutdown"), shutdown, { mode: 0o755 });
  await shell(buildBootScript, [work, root, modules]);
  await rm(boot, { recursive: true, force: true });
  await run("mv", [work, boot]);
}

const buildBootScript = `
work=$1 root=$2 modules=$3
ln -s . "$root/usr"; ln -s ../run "$root/var/run"; ln -s ../bin/busybox "$root/bin/sh"
mkdir "$work/deb"; chmod 777 "$work/deb"; cd "$work/deb"
kernel=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends/{print $2; exit}')
apt-get download -q "$kernel" qemu-guest-agent 2>/dev/null
for f in *.deb; do dpkg -x "$f" "$work/x"; done
cp "$work"/x/boot/vmlinuz-* "$work/vmlinuz"
for m in $modules; do cp "$(find "$work/x/lib/modules" -name "$m.ko")" "$root/lib/modules/"; done
cp /bin/busybox "$root/bin/"; cp "$work/x/usr/sbin/qemu-ga" "$root/sbin/"
ldd "$root/sbin/qemu-ga" | grep -o '/[^ ]*' | while read -r f; do
  mkdir -p "$root$(dirname "$f")"; cp -L "$f" "$root$f"
done
cd "$root"
find . | cpio -o -H newc --quiet | gzip -1 > "$work/initrd"
rm -rf "$work/deb" "$work/x" "$root"
chmod 755 "$work"; chmod 644 "$work"/*
`;

/** Stops the writing loop's host file from being read back by mistake: the console's text so far. */
export async function guestConsole(host: KvmHost, name: string): Promise<string> {
  return readFile(join(host.folder, "log", `${name}.console`), "utf8").catch(() => "");
}
