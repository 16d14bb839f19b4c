import { isFailure } from "../../domain/failure.ts";
import { freeBytes } from "../../kvm-host/files.ts";
import type { DriverCall, ProviderFinding } from "../../ports/driver.ts";
import { parseVersions } from "./choose-strategy.ts";
import { type LibvirtDriverOptions, type LibvirtHost, openLibvirtHost } from "./libvirt-host.ts";

const spaceBytesWanted = 1024 ** 3;

/** Logs in and looks for all that backups and restores need. */
export async function checkHost(
  options: LibvirtDriverOptions,
  { signal }: DriverCall,
): Promise<readonly ProviderFinding[]> {
  let host: LibvirtHost;
  try {
    host = await openLibvirtHost(options, signal);
  } catch (error) {
    if (!isFailure(error)) throw error;
    return [{ check: "login", state: "failed", message: error.message, remedy: error.kind.advice }];
  }
  await using open = host;
  return [
    { check: "login", state: "ok", message: `logged in to ${open.connection.name}` },
    await checkRights(open),
    ...(await checkLibvirt(open)),
    await checkTool(open, "qemu-img", "qemu-utils"),
    await checkTool(open, "qemu-nbd", "qemu-utils"),
    await checkSpace(open),
  ];
}

async function checkRights({ connection }: LibvirtHost): Promise<ProviderFinding> {
  const { stdout } = await connection.run(["id", "-u"]);
  return stdout.trim() === "0"
    ? { check: "rights", state: "ok", message: "the user may read disk images" }
    : {
        check: "rights",
        state: "failed",
        message: "the user is not root and cannot read the images of QEMU's user",
        remedy: "Log in as root, with a key of its own.",
      };
}

async function checkLibvirt({ virsh, uri }: LibvirtHost): Promise<readonly ProviderFinding[]> {
  const result = await virsh.try(["version"]);
  if (result.exitCode !== 0) {
    const remedy = "Install libvirt-clients and start libvirtd, or correct the provider's URI.";
    const message = result.stderr.trim().slice(0, 500);
    return [{ check: "libvirt", state: "failed", message, remedy }];
  }
  const { libvirt, qemu } = parseVersions(result.stdout);
  const text = result.stdout.match(/libvirt [0-9.]+|QEMU [0-9.]+/g)?.join(", ") ?? uri;
  const canTrack = libvirt >= 7_006_000 && qemu >= 6_001_000;
  return [
    canTrack
      ? { check: "libvirt", state: "ok", message: text }
      : {
          check: "libvirt",
          state: "warning",
          message: `${text}: no checkpoints; incremental backups use overlays`,
          remedy: "libvirt 7.6 and QEMU 6.1 or newer bring the strategy checkpoint.",
        },
  ];
}

async function checkTool(
  { connection }: LibvirtHost,
  tool: string,
  packageName: string,
): Promise<ProviderFinding> {
  const { exitCode, stdout } = await connection.run([tool, "--version"]);
  return exitCode === 0
    ? { check: tool, state: "ok", message: stdout.split("\n")[0] ?? "" }
    : {
        check: tool,
        state: "failed",
        message: `${tool} is not installed`,
        remedy: `Install ${packageName} on the host.`,
      };
}

async function checkSpace({ connection, scratchFolder }: LibvirtHost): Promise<ProviderFinding> {
  const made = await connection.run(["mkdir", "-p", "-m", "0711", "--", scratchFolder]);
  if (made.exitCode !== 0) {
    return {
      check: "scratch",
      state: "failed",
      message: made.stderr.trim().slice(0, 500),
      remedy: "Choose another scratch folder in the provider's options.",
    };
  }
  const free = await freeBytes(connection, scratchFolder);
  const message = `${scratchFolder} has ${Math.floor(free / 1024 ** 2)} MiB free`;
  return free >= spaceBytesWanted
    ? { check: "scratch", state: "ok", message }
    : {
        check: "scratch",
        state: "warning",
        message,
        remedy: "Free space there, or choose another scratch folder in the provider's options.",
      };
}
