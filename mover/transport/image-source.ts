import { Failure, isFailure } from "@holdfast/shared/domain/failure";
import type { DiskReader } from "@holdfast/shared/ports/disk";
import { fileSize, openFileReader, openForReading } from "./file-reader.ts";
import { openNbdReader } from "./nbd/nbd-reader.ts";
import { isNbdUri, parseNbdUri } from "./nbd-uri.ts";
import { hasQcow2Magic, parseQcow2Header, readHeaderBytes } from "./qcow2-header.ts";
import { startQemuNbd } from "./qemu-nbd.ts";

/**
 * A disk image for stand-alone use: a file, a block device or an NBD export. Formats are said by the user, never
 * probed: a raw disk may begin with bytes that look like another format, and its guest chose them.
 */
export type ImageSource = DiskReader & {
  /** What is read and how holes are found, for people: `raw file, holes from its file system`. */
  readonly description: string;
};

export type ImageSourceSpec = {
  /** A path, `nbd://host:port/export`, `nbds://…` or `nbd+unix:///export?socket=PATH`. */
  readonly source: string;
  /** Of files; undefined is raw, unless the file begins as qcow2 does: then it must be said. */
  readonly format: "raw" | "qcow2" | undefined;
  /** Of an NBD export: what this dirty bitmap doesn't name is called unchanged. */
  readonly bitmap?: string;
  readonly signal?: AbortSignal;
};

/**
 * Fails with `input.invalid` (format not said, no such kind of file), `not-found`, `unsupported` (qcow2 with backing file
 * and the like), `host.package-missing`, `busy` (a running VM has the image open), `changes.unknown` (no such bitmap), and as an NBD
 * connection does.
 */
export async function openImageSource(spec: ImageSourceSpec): Promise<ImageSource> {
  if (isNbdUri(spec.source)) return openNbdSource(spec);
  if (spec.bitmap !== undefined) {
    throw new Failure("input.invalid", {
      message: `--bitmap is of NBD exports; serve ${spec.source} with \`qemu-nbd --read-only --bitmap=${spec.bitmap}\` and give its URI`,
    });
  }
  const probe = await inspectFile(spec.source);
  if (spec.format === "qcow2") return openQcow2(spec, probe);
  if (spec.format === undefined && probe.looksLikeQcow2) {
    throw new Failure("input.invalid", {
      message: `${spec.source} begins as a qcow2 image does; say which it is with --format qcow2 or --format raw`,
    });
  }
  if (probe.isBlockDevice) {
    const reader = await openFileReader(spec.source);
    return describe(reader, "block device, holes not known: everything is read");
  }
  return openRawFile(spec);
}

type FileProbe = {
  readonly header: Buffer;
  readonly looksLikeQcow2: boolean;
  readonly isBlockDevice: boolean;
};

async function inspectFile(path: string): Promise<FileProbe> {
  await using file = await openForReading(path);
  await fileSize(file, path);
  const header = await readHeaderBytes(file);
  const isBlockDevice = (await file.stat()).isBlockDevice();
  return { header, looksLikeQcow2: hasQcow2Magic(header), isBlockDevice };
}

async function openNbdSource(spec: ImageSourceSpec): Promise<ImageSource> {
  const { source, format, bitmap, signal } = spec;
  if (format === "qcow2") {
    throw new Failure("input.invalid", {
      message: "an NBD export has no format: its server gives the disk's bytes; leave --format out",
    });
  }
  const { address, exportName } = parseNbdUri(source);
  const call = { exportName, ...(signal === undefined ? {} : { signal }) };
  if (bitmap !== undefined) {
    const extents = { by: "dirty-bitmap", name: bitmap } as const;
    const reader = await openNbdReader(address, { ...call, extents });
    return describe(reader, `NBD export, changes from its bitmap ${bitmap}`);
  }
  try {
    const reader = await openNbdReader(address, { ...call, extents: { by: "allocation" } });
    return describe(reader, "NBD export, holes from its server");
  } catch (error) {
    // An old or simple server cannot tell where holes are; reading everything is right, only slower.
    if (!isFailure(error, "changes.unknown")) throw error;
    const extents = { by: "list", list: [], otherwise: "zero" } as const;
    const reader = await openNbdReader(address, { ...call, extents });
    return describe(withoutMap(reader), "NBD export, holes not known: everything is read");
  }
}

async function openQcow2(spec: ImageSourceSpec, probe: FileProbe): Promise<ImageSource> {
  const { source, signal } = spec;
  if (probe.isBlockDevice) {
    const message = `${source} is a block device; qcow2 images are read from files only`;
    throw new Failure("unsupported", { message });
  }
  const header = parseQcow2Header(probe.header, source);
  const reader = await openThroughQemuNbd({ file: source, format: "qcow2", signal });
  if (reader.sizeBytes !== header.sizeBytes) {
    await reader[Symbol.asyncDispose]();
    const message = `${source} has a size of ${header.sizeBytes} bytes in its header, but qemu-nbd says ${reader.sizeBytes}`;
    throw new Failure("disk.read-failed", { message });
  }
  return describe(reader, "qcow2 file through qemu-nbd");
}

/** Reads by ourselves, but asks qemu-nbd where the file system has holes, because Node cannot. */
async function openRawFile({ source, signal }: ImageSourceSpec): Promise<ImageSource> {
  const reader = await openFileReader(source);
  try {
    const map = await openThroughQemuNbd({ file: source, format: "raw", signal });
    if (map.sizeBytes < reader.sizeBytes) {
      await map[Symbol.asyncDispose]();
      return describe(reader, "raw file, holes not known: everything is read");
    }
    return {
      ...describe(reader, "raw file, holes from its file system"),
      extents: (options) => clip(map.extents(options), reader.sizeBytes),
      async [Symbol.asyncDispose]() {
        await map[Symbol.asyncDispose]();
        await reader[Symbol.asyncDispose]();
      },
    };
  } catch (error) {
    if (isFailure(error, "host.package-missing")) {
      const why = "raw file, holes not known without qemu-utils: everything is read";
      return describe(reader, why);
    }
    await reader[Symbol.asyncDispose]();
    throw error;
  }
}

async function openThroughQemuNbd(options: {
  readonly file: string;
  readonly format: "raw" | "qcow2";
  readonly signal: AbortSignal | undefined;
}): Promise<DiskReader> {
  const { signal } = options;
  const server = await startQemuNbd({ ...options, isReadOnly: true });
  try {
    const call = signal === undefined ? {} : { signal };
    const reader = await server.connect((socketPath) =>
      openNbdReader(
        { kind: "unix", path: socketPath },
        { exportName: "", extents: { by: "allocation" }, ...call },
      ),
    );
    return {
      ...reader,
      async [Symbol.asyncDispose]() {
        await reader[Symbol.asyncDispose]();
        await server[Symbol.asyncDispose]();
      },
    };
  } catch (error) {
    await server[Symbol.asyncDispose]();
    throw error;
  }
}

/** QEMU rounds a raw file's size up to whole sectors. */
async function* clip(
  extents: ReturnType<DiskReader["extents"]>,
  sizeBytes: number,
): ReturnType<DiskReader["extents"]> & AsyncGenerator {
  for await (const extent of extents) {
    const length = Math.min(extent.length, sizeBytes - extent.offset);
    if (length > 0) yield { ...extent, length };
  }
}

function withoutMap(reader: DiskReader): DiskReader {
  const { sizeBytes } = reader;
  return {
    ...reader,
    async *extents() {
      if (sizeBytes > 0) yield { offset: 0, length: sizeBytes, kind: "data" };
    },
  };
}

function describe(reader: DiskReader, description: string): ImageSource {
  return { ...reader, description };
}
