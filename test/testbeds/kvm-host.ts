/**
 * A real libvirt and QEMU host on loopback for system tests and the demo: virtlogd, libvirtd and sshd as plain
 * daemons, without systemd. Needs root on Debian 12. Everything lies under one folder; starting twice is harmless.
 */
import { chmod, mkdir, readFile, stat, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { installMissing, run, shell, succeeds, waitUntil } from "./run.ts";

const packages = [
  "libvirt-daemon",
  "libvirt-daemon-driver-qemu",
  "libvirt-clients",
  "qemu-system-x86",
  "qemu-utils",
  "openssh-server",
  "openssh-client",
  "busybox-static",
  "cpio",
  "e2fsprogs",
];

export type KvmHostOptions = {
  /** Holds all of the host: images, keys, logs. */
  readonly folder: string;
  /** Of sshd, on 127.0.0.1. */
  readonly port: number;
  readonly say?: (line: string) => void;
};

export type KvmHost = {
  readonly folder: string;
  readonly images: string;
  readonly uri: "qemu:///system";
  /** How a mover logs in. */
  readonly address: {
    readonly kind: "ssh";
    readonly host: "127.0.0.1";
    readonly port: number;
    readonly user: "root";
    readonly hostKeys: readonly string[];
    readonly login: { readonly kind: "key"; readonly privateKey: string };
  };
  virsh(...args: readonly string[]): Promise<string>;
  restartLibvirtd(): Promise<void>;
  /** Stops the daemons that this testbed started; guests keep running unless they are stopped first. */
  stop(): Promise<void>;
};

export async function startKvmHost(options: KvmHostOptions): Promise<KvmHost> {
  const say = options.say ?? (() => undefined);
  const { folder } = options;
  await installMissing(packages, say);
  await makeUsers();
  for (const part of ["images", "run", "log"]) {
    await mkdir(join(folder, part), { recursive: true });
  }
  // QEMU runs as libvirt-qemu and must pass through.
  await chmod(folder, 0o711);
  await chmod(join(folder, "images"), 0o755);
  await mkdir("/run/sshd", { recursive: true });
  await mkdir("/var/log/libvirt/qemu", { recursive: true });
  await startLibvirt(folder);
  const keys = await startSshd(options);
  return {
    folder,
    images: join(folder, "images"),
    uri: "qemu:///system",
    address: {
      kind: "ssh",
      host: "127.0.0.1",
      port: options.port,
      user: "root",
      hostKeys: [keys.hostKey],
      login: { kind: "key", privateKey: keys.privateKey },
    },
    virsh: (...args) => run("virsh", ["-q", "-c", "qemu:///system", ...args]),
    restartLibvirtd: async () => {
      await stopDaemon(join(folder, "run/libvirtd.pid"));
      await startLibvirt(folder);
    },
    stop: async () => {
      for (const name of ["sshd", "libvirtd", "virtlogd"]) {
        await stopDaemon(join(folder, `run/${name}.pid`));
      }
    },
  };
}

/**
 * What the postinst of libvirt-daemon-system adds; that package would also pull in systemd and iptables. And what
 * udev does for /dev/kvm: while it exists but QEMU's user may not use it, libvirt probes QEMU anew on every call.
 */
function makeUsers(): Promise<string> {
  return shell(`
    for g in kvm libvirt libvirt-qemu; do getent group $g >/dev/null || groupadd -r $g; done
    id libvirt-qemu >/dev/null 2>&1 || useradd -r -g libvirt-qemu -G kvm -d /var/lib/libvirt -s /usr/sbin/nologin libvirt-qemu
    if [ -c /dev/kvm ]; then chgrp kvm /dev/kvm; chmod 660 /dev/kvm; fi
  `);
}

async function startLibvirt(folder: string): Promise<void> {
  const virtlogd = join(folder, "run/virtlogd.pid");
  if (!(await isAlive(virtlogd))) {
    if (!(await succeeds("pidof", ["virtlogd"]))) {
      await run("virtlogd", ["--daemon", "--pid-file", virtlogd]);
    }
  }
  if (!(await libvirtAnswers())) {
    const config = join(folder, "libvirtd.conf");
    const log = join(folder, "log/libvirtd.log");
    await writeFile(
      config,
      [
        `log_outputs = "2:file:${log}"`,
        'unix_sock_group = "libvirt"',
        'unix_sock_rw_perms = "0770"',
        'auth_unix_rw = "none"',
        'auth_unix_ro = "none"',
        "",
      ].join("\n"),
    );
    const pidFile = join(folder, "run/libvirtd.pid");
    await run("libvirtd", ["--daemon", "--config", config, "--pid-file", pidFile]);
  }
  await waitUntil("libvirtd answers", libvirtAnswers, 30_000);
}

function libvirtAnswers(): Promise<boolean> {
  return succeeds("virsh", ["-q", "-c", "qemu:///system", "version"]);
}

async function startSshd({ folder, port }: KvmHostOptions) {
  for (const name of ["host_key", "client_key"]) {
    const file = join(folder, name);
    if (!(await exists(file))) {
      await run("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-C", name, "-f", file]);
    }
  }
  const authorized = join(folder, "authorized_keys");
  await writeFile(authorized, await readFile(join(folder, "client_key.pub")), { mode: 0o600 });
  const pidFile = join(folder, "run/sshd.pid");
  if (!(await isAlive(pidFile))) {
    const config = join(folder, "sshd_config");
    await writeFile(
      config,
      [
        `ListenAddress 127.0.0.1:${port}`,
        `HostKey ${join(folder, "host_key")}`,
        `AuthorizedKeysFile ${authorized}`,
        `PidFile ${pidFile}`,
        "PermitRootLogin prohibit-password",
        "PasswordAuthentication no",
        "KbdInteractiveAuthentication no",
        "UsePAM no",
        "StrictModes no",
        "MaxSessions 64",
        "MaxStartups 64",
        "Subsystem sftp internal-sftp",
        // A login shell's ~/.bashrc would otherwise run before every command.
        "SetEnv SHLVL=1",
        "",
      ].join("\n"),
    );
    await run("/usr/sbin/sshd", ["-f", config, "-E", join(folder, "log/sshd.log")]);
    await waitUntil("sshd runs", () => isAlive(pidFile), 10_000);
  }
  const publicKey = await readFile(join(folder, "host_key.pub"), "utf8");
  return {
    hostKey: publicKey.trim().split(" ").slice(0, 2).join(" "),
    privateKey: await readFile(join(folder, "client_key"), "utf8"),
  };
}

async function stopDaemon(pidFile: string): Promise<void> {
  if (!(await isAlive(pidFile))) return;
  process.kill(Number(await readFile(pidFile, "utf8")), "SIGTERM");
  await waitUntil(`${pidFile} ends`, async () => !(await isAlive(pidFile)), 30_000);
}

/** By the process's name too: after a reboot the number may be another process's. */
async function isAlive(pidFile: string): Promise<boolean> {
  try {
    const pid = Number(await readFile(pidFile, "utf8"));
    const name = await readFile(`/proc/${pid}/comm`, "utf8");
    return name.trim() === basename(pidFile, ".pid");
  } catch {
    return false;
  }
}

async function exists(file: string): Promise<boolean> {
  return stat(file).then(
    () => true,
    () => false,
  );
}
