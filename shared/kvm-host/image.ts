import { z } from "zod";
import { Failure } from "../domain/failure.ts";
import type { HostConnection } from "../ports/host.ts";
import type { DomainDisk } from "./domain-xml.ts";
import { folderOf, runOnHost } from "./files.ts";

/**
 * Disk images on the host, by qemu-img. The format always comes from the definition or from a header that the
 * hypervisor wrote, never from probing: a guest can write a qcow2 header into its raw disk. Images in use are
 * looked at with `-U`, for facts only.
 */
export type ImageLayer = { readonly path: string; readonly format: "raw" | "qcow2" };

/** One image and what is below it, the active one first. */
export type ImageChain = readonly [ImageLayer, ...ImageLayer[]];

const Bitmap = z.object({ name: z.string(), flags: z.array(z.string()) });
const ImageInfo = z.object({
  "virtual-size": z.int().min(0),
  format: z.string(),
  "backing-filename": z.string().optional(),
  "full-backing-filename": z.string().optional(),
  "backing-filename-format": z.string().optional(),
  encrypted: z.boolean().optional(),
  snapshots: z.array(z.object({ name: z.string() })).optional(),
  "format-specific": z
    .object({
      data: z
        .object({
          compat: z.string().optional(),
          "data-file": z.string().optional(),
          corrupt: z.boolean().optional(),
          bitmaps: z.array(Bitmap).optional(),
        })
        .optional(),
    })
    .optional(),
});

export type ImageFacts = {
  readonly sizeBytes: number;
  /** qcow2: `1.1` can hold bitmaps, `0.10` cannot. */
  readonly compat: string | undefined;
  readonly hasInternalSnapshots: boolean;
  readonly bitmaps: readonly { readonly name: string; readonly isBroken: boolean }[];
};

const layersMax = 200;

/** Looks at one image's header without opening what is below it. Refuses external data files. */
export async function imageFacts(
  connection: HostConnection,
  layer: ImageLayer,
): Promise<ImageFacts> {
  const info = await readInfo(connection, layer);
  const data = info["format-specific"]?.data;
  if (data?.["data-file"] !== undefined) {
    throw unsupported(`${layer.path} keeps its data in another file, which is refused`);
  }
  if (info.encrypted === true) throw unsupported(`${layer.path} is encrypted by QEMU`);
  if (data?.corrupt === true) throw unsupported(`${layer.path} is marked corrupt by QEMU`);
  return {
    sizeBytes: info["virtual-size"],
    compat: data?.compat,
    hasInternalSnapshots: (info.snapshots ?? []).length > 0,
    bitmaps: (data?.bitmaps ?? []).map(({ name, flags }) => ({
      name,
      isBroken: flags.includes("in-use"),
    })),
  };
}

type ImageInfo = z.infer<typeof ImageInfo>;

async function readInfo(connection: HostConnection, layer: ImageLayer): Promise<ImageInfo> {
  const command = ["qemu-img", "info", "-U", "--output=json", "-f", layer.format, layer.path];
  const output = await runOnHost(connection, ["timeout", "60", ...command]);
  try {
    return ImageInfo.parse(JSON.parse(output));
  } catch (error) {
    const message = `qemu-img info ${layer.path}`;
    throw new Failure("host.output-invalid", { message, cause: error });
  }
}

/** What the header says is below the image. Only local paths with a stated format are followed. */
function backingOf(info: ImageInfo, layer: ImageLayer): ImageLayer | undefined {
  const name = info["backing-filename"];
  if (name === undefined || layer.format === "raw") return undefined;
  const format = info["backing-filename-format"];
  if (/^[a-z0-9+.-]+:/i.test(name)) {
    throw unsupported(
      `${layer.path} has the backing file ${name.slice(0, 200)}, which is no local path`,
    );
  }
  if (format !== "raw" && format !== "qcow2") {
    throw unsupported(`${layer.path} does not say (raw or qcow2) what its backing file ${name} is`);
  }
  return { path: name.startsWith("/") ? name : `${folderOf(layer.path)}/${name}`, format };
}

/**
 * The chain of a domain's disk. A running domain's chain is what QEMU has opened; a stopped one's is followed from
 * header to header, each with a stated format.
 */
export async function imageChain(
  connection: HostConnection,
  disk: DomainDisk,
): Promise<ImageChain> {
  if (disk.source.kind !== "file" && disk.source.kind !== "block") {
    throw unsupported(`disk ${disk.target} is no file or block device`);
  }
  const chain: [ImageLayer, ...ImageLayer[]] = [
    { path: disk.source.path, format: imageFormat(disk.target, disk.format) },
  ];
  for (const { path, format } of disk.backing) {
    chain.push({ path, format: imageFormat(disk.target, format) });
  }
  let last = chain.at(-1) ?? chain[0];
  while (!disk.backingIsComplete && last.format === "qcow2") {
    const backing = backingOf(await readInfo(connection, last), last);
    if (backing === undefined) break;
    if (chain.length >= layersMax || chain.some((layer) => layer.path === backing.path)) {
      throw unsupported(`disk ${disk.target} has an endless backing chain`);
    }
    chain.push(backing);
    last = backing;
  }
  return chain;
}

function imageFormat(target: string, format: string): "raw" | "qcow2" {
  if (format === "raw" || format === "qcow2") return format;
  throw unsupported(`disk ${target} has the format ${format}; raw and qcow2 are supported`);
}

/**
 * A name for QEMU's tools that opens exactly this chain, whatever the headers say.
 * `shared`: also while a QEMU writes it; only for images that are watched for change.
 */
export function chainName(
  chain: readonly ImageLayer[],
  options: { readonly shared: boolean },
): string {
  return `json:${JSON.stringify(chainNode(chain, options.shared))}`;
}

function chainNode([layer, ...below]: readonly ImageLayer[], shared: boolean): object {
  if (layer === undefined) throw new Failure("internal", { message: "an empty image chain" });
  const isDevice = layer.path.startsWith("/dev/");
  const share = shared ? { "force-share": true } : {};
  const file = { driver: isDevice ? "host_device" : "file", filename: layer.path, ...share };
  if (layer.format === "raw") return { driver: "raw", file, "read-only": true, ...share };
  const backing = below.length === 0 ? null : chainNode(below, shared);
  return { driver: "qcow2", file, backing, "read-only": true, ...share };
}

const ImageMap = z.array(z.object({ depth: z.int(), present: z.boolean(), data: z.boolean() }));

/** True when the top image holds nothing of its own: losing it loses nothing. */
export async function isTopEmpty(connection: HostConnection, layer: ImageLayer): Promise<boolean> {
  const name = chainName([layer], { shared: true });
  const output = await runOnHost(connection, ["qemu-img", "map", "-U", "--output=json", name]);
  return ImageMap.parse(JSON.parse(output)).every(({ present, data }) => !present && !data);
}

function unsupported(message: string): Failure {
  return new Failure("vm.unsupported", { message });
}
