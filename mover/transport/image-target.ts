import { constants } from "node:fs";
import { type FileHandle, link, lstat, open, rename, rm, stat } from "node:fs/promises";
import path from "node:path";
import { asFailure, Failure, isFailure } from "@holdfast/shared/domain/failure";
import type { DiskWriter } from "@holdfast/shared/ports/disk";
import { fileSize } from "./file-reader.ts";
import { createFileWriter } from "./file-writer.ts";
import { limitTool } from "./limited-tool.ts";
import { createLocalHost } from "./local-host.ts";
import { openNbdWriter } from "./nbd/nbd-writer.ts";
import { startQemuNbd } from "./qemu-nbd.ts";

/**
 * Where a stand-alone restore goes: a raw file (sparse), a qcow2 file or a block device. A file is written under
 * `<output>.partial` and gets its name at `commit`; until then whatever had the name stays as it is.
 */
export type ImageTarget = DiskWriter & {
  /** Everything is durable and has its name when it resolves. Not called: disposing removes the partial file. */
  commit(): Promise<void>;
};

export type ImageTargetSpec = {
  readonly output: string;
  readonly format: "raw" | "qcow2";
  readonly sizeBytes: number;
  /** Needed to replace a file, to remove an older run's partial file, and for every block device, whose content is lost. */
  readonly overwrite: boolean;
  readonly signal?: AbortSignal;
};

/** Fails with `target.refused` (taken, in use, too small), `host.package-missing`, `disk.write-failed`. */
export async function openImageTarget(spec: ImageTargetSpec): Promise<ImageTarget> {
  const existing = await lookAt(spec.output);
  if (existing?.isBlockDevice() === true) return openDeviceTarget(spec);
  if (existing !== undefined && !existing.isFile()) {
    throw refused(`${spec.output} exists and is no regular file or block device`);
  }
  if (existing !== undefined && !spec.overwrite) {
    throw refused(`${spec.output} exists; pass --overwrite to replace it`);
  }
  const partial = `${spec.output}.partial`;
  if (spec.overwrite) await rm(partial, { force: true });
  else if ((await lookAt(partial)) !== undefined) {
    throw refused(
      `${partial} exists, left by a run that is going on or was killed; remove it or pass --overwrite`,
    );
  }
  const open = spec.format === "raw" ? openRawTarget : openQcow2Target;
  return open(spec, partial);
}

async function openRawTarget(spec: ImageTargetSpec, partial: string): Promise<ImageTarget> {
  const file = await createPartial(partial);
  try {
    await file.truncate(spec.sizeBytes);
  } catch (error) {
    await file.close();
    await rm(partial, { force: true });
    throw asFailure(
      error,
      "disk.write-failed",
      `cannot make ${partial} ${spec.sizeBytes} bytes long`,
    );
  }
  const { sizeBytes } = spec;
  const writer = createFileWriter({ file, name: partial, sizeBytes, startsZeroed: true });
  let isCommitted = false;
  return {
    ...writer,
    async commit() {
      await writer.flush();
      await giveName(spec, partial);
      isCommitted = true;
    },
    async [Symbol.asyncDispose]() {
      await writer[Symbol.asyncDispose]();
      if (!isCommitted) await rm(partial, { force: true });
    },
  };
}

async function openQcow2Target(spec: ImageTargetSpec, partial: string): Promise<ImageTarget> {
  await (await createPartial(partial)).close();
  const removePartial = (): Promise<void> => rm(partial, { force: true });
  try {
    await createQcow2(spec, partial);
    const server = await startQemuNbd({ file: partial, format: "qcow2", isReadOnly: false });
    let isClosed = false;
    let isCommitted = false;
    const call = spec.signal === undefined ? {} : { signal: spec.signal };
    const writer = await server
      .connect((socketPath) =>
        openNbdWriter(
          { kind: "unix", path: socketPath },
          { exportName: "", startsZeroed: true, ...call },
        ),
      )
      .catch(async (error) => {
        await server[Symbol.asyncDispose]();
        throw error;
      });
    return {
      ...writer,
      sizeBytes: spec.sizeBytes,
      async commit() {
        await writer.flush();
        isClosed = true;
        await writer[Symbol.asyncDispose]();
        await server.finished();
        await syncPath(partial);
        await giveName(spec, partial);
        isCommitted = true;
      },
      async [Symbol.asyncDispose]() {
        if (!isClosed) await writer[Symbol.asyncDispose]();
        await server[Symbol.asyncDispose]();
        if (!isCommitted) await removePartial();
      },
    };
  } catch (error) {
    await removePartial();
    throw error;
  }
}

/** Writing a header and empty tables takes milliseconds. */
const createCpuSecondsMax = 60;

async function createQcow2({ sizeBytes, signal }: ImageTargetSpec, partial: string): Promise<void> {
  await using host = createLocalHost();
  const command = limitTool(
    ["qemu-img", "create", "-q", "-f", "qcow2", path.resolve(partial), `${sizeBytes}`],
    { cpuSecondsMax: createCpuSecondsMax },
  );
  const { exitCode, stderr } = await host.run(command, signal ? { signal } : {});
  if (exitCode === 127) {
    throw new Failure("host.package-missing", {
      message: "qemu-img is not installed on this machine; it is in the package qemu-utils",
    });
  }
  if (exitCode !== 0) {
    throw new Failure("disk.write-failed", {
      message: `qemu-img cannot create ${partial}: ${stderr.trim()}`,
    });
  }
}

async function openDeviceTarget(spec: ImageTargetSpec): Promise<ImageTarget> {
  const { output, sizeBytes } = spec;
  if (spec.format !== "raw") throw refused(`${output} is a block device and takes raw format only`);
  if (!spec.overwrite) {
    throw refused(
      `${output} is a block device, all of whose content would be lost; pass --overwrite`,
    );
  }
  let file: FileHandle;
  try {
    // On a block device O_EXCL fails when it is mounted or otherwise in use.
    file = await open(output, constants.O_RDWR | constants.O_EXCL);
  } catch (error) {
    throw refused(`${output} cannot be opened alone: it is mounted, in use or not writable`, error);
  }
  const deviceBytes = await fileSize(file, output);
  if (deviceBytes < sizeBytes) {
    await file.close();
    throw refused(`${output} has ${deviceBytes} bytes, less than the ${sizeBytes} of the disk`);
  }
  const writer = createFileWriter({ file, name: output, sizeBytes, startsZeroed: false });
  return { ...writer, commit: () => writer.flush() };
}

async function createPartial(partial: string): Promise<FileHandle> {
  try {
    // Guest data: nobody else's to read.
    return await open(partial, "wx+", 0o600);
  } catch (error) {
    throw asFailure(error, "target.refused", `cannot create ${partial}`);
  }
}

/** The file gets its name at once and whole. Without `overwrite` a name that was taken meanwhile is left alone. */
async function giveName({ output, overwrite }: ImageTargetSpec, partial: string): Promise<void> {
  try {
    if (overwrite) await rename(partial, output);
    else await renameToFreeName(partial, output);
    await syncPath(path.dirname(path.resolve(output)));
  } catch (error) {
    if (isFailure(error)) throw error;
    throw asFailure(error, "disk.write-failed", `cannot rename ${partial} to ${output}`);
  }
}

async function renameToFreeName(partial: string, output: string): Promise<void> {
  try {
    await link(partial, output);
  } catch (error) {
    const code = error instanceof Error && "code" in error ? error.code : undefined;
    if (code === "EEXIST") throw refused(`${output} was made by someone else meanwhile`, error);
    // A file system without hard links: the check just before is the best there is.
    if ((await lookAt(output)) !== undefined) throw refused(`${output} was made by someone else`);
    await rename(partial, output);
    return;
  }
  await rm(partial);
}

async function syncPath(name: string): Promise<void> {
  await using file = await open(name, constants.O_RDONLY);
  await file.sync();
}

async function lookAt(name: string) {
  try {
    const info = await lstat(name);
    if (!info.isSymbolicLink()) return info;
    // Devices are often named by links (/dev/disk/by-id); links to files are refused, not followed or replaced.
    const target = await stat(name).catch(() => undefined);
    return target?.isBlockDevice() === true ? target : info;
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return undefined;
    throw asFailure(error, "target.refused", `cannot look at ${name}`);
  }
}

function refused(message: string, cause?: unknown): Failure {
  return new Failure("target.refused", { message, cause });
}
