import { createHash } from "node:crypto";
import { z } from "zod";
import { Failure } from "../../domain/failure.ts";
import type { VmDisk } from "../../domain/vm.ts";
import { parseDomain } from "../../kvm-host/domain-xml.ts";
import { folderOf } from "../../kvm-host/files.ts";
import type { RestoreRequest } from "../../ports/driver.ts";
import { RbdReference } from "./state.ts";

/**
 * What a restore will make and where. Names are deterministic from the job id, so that a stage that runs twice
 * finds its own things; disks have temporary names until all their data is there.
 */
export const RestoredDisk = z.discriminatedUnion("kind", [
  z.object({
    kind: z.literal("file"),
    key: z.string(),
    sizeBytes: z.number(),
    format: z.enum(["raw", "qcow2"]),
    partial: z.string(),
    final: z.string(),
    /** Of the file that this job made; undefined until it is made. */
    inode: z.string().optional(),
  }),
  z.object({
    kind: z.literal("rbd"),
    key: z.string(),
    sizeBytes: z.number(),
    rbd: RbdReference,
    partial: z.string(),
    final: z.string(),
    /** Of the image that this job made. */
    identity: z.string(),
  }),
]);
export type RestoredDisk = z.infer<typeof RestoredDisk>;

export const RestoreState = z.object({
  name: z.string(),
  uuid: z.string(),
  /** The VM of that name is stopped and gives up its place. */
  replaces: z.boolean(),
  start: z.boolean(),
  folder: z.string(),
  /** The definition, on the host until it is used. */
  definition: z.string(),
  disks: z.array(RestoredDisk),
  nvram: z
    .object({ partial: z.string(), final: z.string(), inode: z.string().optional() })
    .optional(),
});
export type RestoreState = z.infer<typeof RestoreState>;

export type WantedDisk = {
  readonly disk: VmDisk;
  readonly sizeBytes: number;
  /** It was not in the backup and starts empty. */
  readonly isEmpty: boolean;
};

const imagesFolderDefault = "/var/lib/libvirt/images";

/** The disks to make: those of the point, and empty ones for what was left out, if that is wanted. */
export function wantedDisks({ metadata, disks, target }: RestoreRequest): readonly WantedDisk[] {
  const known = new Map(metadata.description.disks.map((disk) => [disk.key, disk]));
  const wanted = disks.map(({ key, sizeBytes }) => {
    const disk = known.get(key);
    if (disk === undefined) {
      throw new Failure("input.invalid", {
        message: `the point does not describe its disk ${key}`,
      });
    }
    return { disk, sizeBytes, isEmpty: false };
  });
  if (target.excludedDisks === "omit") return wanted;
  const empty = metadata.excludedDisks.flatMap(({ key, sizeBytes }) => {
    const disk = known.get(key);
    return disk === undefined || sizeBytes === 0 ? [] : [{ disk, sizeBytes, isEmpty: true }];
  });
  return [...wanted, ...empty];
}

export type DiskPlace = {
  readonly kind: "file" | "rbd";
  /** Folder, or RBD pool. */
  readonly location: string;
  readonly format: "raw" | "qcow2";
};

export function placeOf({ disk }: WantedDisk, { target }: RestoreRequest): DiskPlace {
  const storage = target.storage === "original" ? disk.storage : target.storage;
  if (storage === "rbd") {
    const pool =
      target.location ?? (disk.storage === "rbd" ? disk.location.split("/")[0] : undefined);
    if (pool === undefined || pool === "" || pool.startsWith("/")) {
      throw new Failure("input.invalid", {
        message: `disk ${disk.key} goes to RBD: name the pool as the location`,
      });
    }
    return { kind: "rbd", location: pool, format: "raw" };
  }
  const beside = disk.storage === "file" ? folderOf(disk.location) : imagesFolderDefault;
  const location = target.location ?? beside;
  if (!location.startsWith("/")) {
    throw new Failure("input.invalid", {
      message: `disk ${disk.key} goes to a file: the location ${location} is no absolute folder`,
    });
  }
  const format = target.format === "original" ? disk.format : target.format;
  return { kind: "file", location, format };
}

export function diskNames(
  request: RestoreRequest,
  key: string,
  place: DiskPlace,
  jobId: string,
): { readonly partial: string; readonly final: string; readonly fallback: string } {
  const stem = `${place.location}/${fileSafe(request.target.name)}-${fileSafe(key)}`;
  const ending = place.kind === "rbd" ? "" : `.${place.format}`;
  return {
    partial: `${stem}.holdfast-${jobId}.partial${ending}`,
    final: `${stem}${ending}`,
    fallback: `${stem}-${jobId}${ending}`,
  };
}

export function fileSafe(name: string): string {
  const safe = name.replace(/[^A-Za-z0-9._-]/g, "_").slice(0, 100);
  return safe.replace(/^[.-]/, "_");
}

/** The same for every attempt of the job. */
export function uuidOf(jobId: string): string {
  const hex = createHash("sha256").update(`uuid ${jobId}`).digest("hex");
  const variant = ((Number.parseInt(hex.charAt(16), 16) & 3) | 8).toString(16);
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-4${hex.slice(13, 16)}-${variant}${hex.slice(17, 20)}-${hex.slice(20, 32)}`;
}

/** A locally administered address in QEMU's range. */
export function macOf(jobId: string, index: number): string {
  const hex = createHash("sha256").update(`mac ${jobId} ${index}`).digest("hex");
  return `52:54:00:${hex.slice(0, 2)}:${hex.slice(2, 4)}:${hex.slice(4, 6)}`;
}

/** Access to Ceph as the original's RBD disks had it; none stated means the host's own configuration. */
export function rbdAccess(domainXml: string): Omit<RbdReference, "image"> {
  for (const { source } of parseDomain(domainXml).disks) {
    if (source.kind !== "rbd") continue;
    return {
      ...(source.configFile === undefined ? {} : { configFile: source.configFile }),
      ...(source.user === undefined ? {} : { user: source.user }),
      monitors: [...source.monitors],
    };
  }
  return {};
}
