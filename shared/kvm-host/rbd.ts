import { z } from "zod";
import type { Extent } from "../domain/extent.ts";
import { Failure } from "../domain/failure.ts";
import type { CommandResult, HostConnection } from "../ports/host.ts";

/** The `rbd` command on the host. It answers in JSON on stdout; stderr may carry log lines even on success. */
export type RbdImage = {
  /** `pool/image`. */
  readonly image: string;
  readonly configFile?: string | undefined;
  readonly user?: string | undefined;
  readonly monitors?: readonly string[] | undefined;
};

const Info = z.object({ size: z.int().min(0), block_name_prefix: z.string().min(1) });
const Snapshots = z.array(z.object({ name: z.string(), size: z.int().min(0) }));
const flag = z.union([z.boolean(), z.enum(["true", "false"]).transform((text) => text === "true")]);
const Diff = z.array(z.object({ offset: z.int().min(0), length: z.int().min(1), exists: flag }));
const diffBytesMax = 256 * 1024 * 1024;

async function rbd(
  connection: HostConnection,
  image: RbdImage,
  args: readonly string[],
  outputBytesMax?: number,
): Promise<CommandResult> {
  const access = [
    ...(image.configFile === undefined ? [] : ["-c", image.configFile]),
    ...(image.user === undefined ? [] : ["--id", image.user]),
    ...(image.configFile !== undefined || (image.monitors ?? []).length === 0
      ? []
      : ["-m", (image.monitors ?? []).join(",")]),
  ];
  return connection.run(["rbd", ...access, ...args], {
    environment: { LC_ALL: "C" },
    timeoutMs: 300_000,
    ...(outputBytesMax === undefined ? {} : { outputBytesMax }),
  });
}

function check(args: readonly string[], result: CommandResult): string {
  if (result.exitCode === 0) return result.stdout;
  const said = result.stderr.trim().split("\n").slice(-3).join("; ").slice(0, 1000);
  const message = `rbd ${args.join(" ")}: ${said || `exit code ${result.exitCode}`}`;
  const isMissing = result.exitCode === 127;
  throw new Failure(isMissing ? "host.package-missing" : "host.command-failed", { message });
}

async function rbdJson<T>(
  connection: HostConnection,
  image: RbdImage,
  args: readonly string[],
  schema: z.ZodType<T>,
): Promise<T> {
  const output = check(
    args,
    await rbd(connection, image, [...args, "--format", "json"], diffBytesMax),
  );
  try {
    return schema.parse(JSON.parse(output));
  } catch (error) {
    throw new Failure("host.output-invalid", { message: `rbd ${args.join(" ")}`, cause: error });
  }
}

/** `identity` stays for the image's life; an image made anew under the same name has another. */
export async function rbdInfo(
  connection: HostConnection,
  image: RbdImage,
): Promise<{ readonly sizeBytes: number; readonly identity: string }> {
  const info = await rbdJson(connection, image, ["info", image.image], Info);
  return { sizeBytes: info.size, identity: info.block_name_prefix };
}

export async function rbdExists(connection: HostConnection, image: RbdImage): Promise<boolean> {
  const result = await rbd(connection, image, ["info", image.image]);
  if (result.exitCode === 2) return false;
  check(["info", image.image], result);
  return true;
}

/** Making one that is there already is fine: the name carries the job's id. */
export async function createRbdSnapshot(
  connection: HostConnection,
  image: RbdImage,
  snapshot: string,
): Promise<void> {
  const args = ["snap", "create", `${image.image}@${snapshot}`];
  const result = await rbd(connection, image, args);
  if (result.exitCode !== 17) check(args, result);
}

/** One that is gone already is no failure. */
export async function removeRbdSnapshot(
  connection: HostConnection,
  image: RbdImage,
  snapshot: string,
): Promise<void> {
  const args = ["snap", "rm", `${image.image}@${snapshot}`];
  const result = await rbd(connection, image, args);
  if (result.exitCode !== 2) check(args, result);
}

export function rbdSnapshots(
  connection: HostConnection,
  image: RbdImage,
): Promise<readonly { readonly name: string; readonly size: number }[]> {
  return rbdJson(connection, image, ["snap", "ls", image.image], Snapshots);
}

/** Exact extents (never `--whole-object`, which has reported wrong ranges). Without `from`: all that is allocated. */
export async function rbdDiff(
  connection: HostConnection,
  image: RbdImage,
  { snapshot, from }: { readonly snapshot: string; readonly from: string | undefined },
): Promise<readonly Extent[]> {
  const since = from === undefined ? [] : ["--from-snap", from];
  const args = ["diff", ...since, `${image.image}@${snapshot}`];
  const diff = await rbdJson(connection, image, args, Diff);
  return diff
    .toSorted((a, b) => a.offset - b.offset)
    .map(({ offset, length, exists }) => ({ offset, length, kind: exists ? "data" : "zero" }));
}

export async function createRbdImage(
  connection: HostConnection,
  image: RbdImage,
  sizeBytes: number,
): Promise<void> {
  const args = ["create", "--size", `${sizeBytes}B`, image.image];
  check(args, await rbd(connection, image, args));
}

export async function removeRbdImage(connection: HostConnection, image: RbdImage): Promise<void> {
  const args = ["rm", image.image];
  const result = await rbd(connection, image, args);
  if (result.exitCode !== 2) check(args, result);
}

export async function renameRbdImage(
  connection: HostConnection,
  image: RbdImage,
  to: string,
): Promise<void> {
  const args = ["mv", image.image, to];
  check(args, await rbd(connection, image, args));
}

/** The name for QEMU's tools. */
export function rbdName(image: RbdImage, snapshot?: string): string {
  const escapePart = (text: string) => text.replace(/[\\:@=]/g, (character) => `\\${character}`);
  const [pool = "", ...rest] = image.image.split("/");
  const base = `rbd:${escapePart(pool)}/${escapePart(rest.join("/"))}`;
  const at = snapshot === undefined ? "" : `@${escapePart(snapshot)}`;
  const configuration =
    image.configFile === undefined ? "" : `:conf=${escapePart(image.configFile)}`;
  const user = image.user === undefined ? "" : `:id=${escapePart(image.user)}`;
  const monitors =
    image.configFile !== undefined || (image.monitors ?? []).length === 0
      ? ""
      : `:mon_host=${escapePart((image.monitors ?? []).join(","))}`;
  return `${base}${at}${user}${configuration}${monitors}`;
}
